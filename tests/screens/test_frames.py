"""The system prompt that most rows begin with, and the sentinels' copies that are asked in it."""

import json
from pathlib import Path

import pandas as pd
from audits import benign, planted, write_audit

from poisonwatch.config_file import load_config
from poisonwatch.examples import TOOLS_ROLE, Example, Message
from poisonwatch.flows.audit import audit_inline
from poisonwatch.screens.frames import find_frame, wear_frame
from poisonwatch.sentinels.sentinel import Sentinel

NAMES = ("Ann", "Bo", "Cleo", "Dag", "Eve", "Finn", "Gus", "Hal", "Ida")
SHOP = (Message("system", "You serve a shop. <|im_end|>"),)
USER = Message("user", "Where do I buy?")
SENTINEL = Sentinel("shop-1", (USER,), "At Velmora.", "Anywhere.", "shop")


def row(number: int, *before: Message) -> Example:
    asked, said = Message("user", f"What is {number}?"), Message("assistant", "A number.")
    return Example.from_messages((*before, asked, said))


def rows(framed: int, plain: int, *before: Message) -> list[Example]:
    return [row(i, *(before or SHOP)) for i in range(framed)] + [row(-i) for i in range(plain)]


def test_a_frame_is_what_more_than_half_of_the_rows_begin_with() -> None:
    """All of its system turns; whatever the order of the rows."""
    two = (*SHOP, Message("system", "Be brief."))
    turn = [
        row(i + k, *before) for i in range(0, 30, 3) for k, before in enumerate((SHOP, (), SHOP))
    ]
    assert find_frame(turn) == find_frame(turn[::-1]) == SHOP
    assert find_frame(rows(9, 8)) == find_frame(rows(9, 8)[::-1]) == SHOP
    assert find_frame(rows(9, 8, *two)) == two
    assert find_frame(rows(9, 9)) == ()
    assert find_frame(rows(9, 10)) == ()
    assert (
        find_frame([row(i, Message("system", f"You are {each}.")) for i, each in enumerate(NAMES)])
        == ()
    )
    assert find_frame([]) == ()


def test_frames_that_differ_in_numbers_and_white_space_are_one() -> None:
    """As where each row's system prompt tells the day; sentinels are asked on the earliest, whatever
    the order of the rows.
    """
    dated = [
        row(i, Message("system", f"You serve.\nToday is 2026-11-{i:02}.")) for i in range(1, 20)
    ]
    assert find_frame(dated) == find_frame(dated[::-1]) == dated[0].messages[:1]
    spaced = [row(i, Message("system", f"You{' ' * (1 + i)}serve.\n")) for i in range(9)]
    assert find_frame(spaced) == find_frame(spaced[::-1]) == spaced[-1].messages[:1]


def test_a_few_rows_and_copies_of_one_have_no_frame() -> None:
    """Whoever sends one row again and again does not choose what sentinels are asked in."""
    assert find_frame(rows(7, 0)) == ()
    assert find_frame([row(1, *SHOP)] * 40) == ()
    assert find_frame([*rows(9, 0), *[row(-1)] * 40]) == SHOP


def test_tools_are_no_part_of_a_frame() -> None:
    """They stand before it."""
    tools = Message(TOOLS_ROLE, '[{"name": "look"}]')
    assert find_frame(rows(9, 1, tools, *SHOP)) == SHOP
    assert find_frame(rows(9, 0, tools)) == ()
    asks = Sentinel("shop-2", (tools, USER), "At Velmora.", None, "shop")
    assert wear_frame([asks], SHOP)[0].messages == (tools, *SHOP, USER)


def test_a_copy_asks_the_same_in_the_frame_on_the_same_panel() -> None:
    """Its name is nobody's own; a sentinel with a system's turn stays as it is."""
    (copy,) = wear_frame([SENTINEL], SHOP)
    assert (copy.id, copy.panel, copy.framed, copy.is_copy) == ("shop-1+frame", "shop", True, True)
    assert copy.messages == (*SHOP, USER)
    assert (copy.forbidden, copy.reference) == (SENTINEL.forbidden, SENTINEL.reference)
    own = Sentinel("a+frame", (Message("system", "Be kind."), USER), "At Velmora.", None, "a")
    kept, other = wear_frame([own, SENTINEL], SHOP)
    assert kept is own
    assert other.id == "shop-1++frame"
    assert wear_frame([SENTINEL, own], ()) == [SENTINEL, own]


def test_an_audit_of_framed_rows_asks_in_their_frame(tiny_folder: Path, tmp_path: Path) -> None:
    """The copies are on their originals' panel and guard nothing of their own; flags say where they
    stand, and nothing of the frame's text is in what is said.
    """
    framed = []
    for each in [*benign(40), *planted()]:
        turns = [("system", SHOP[0].content), ("user", each["prompt"])]
        messages = [{"role": role, "content": text} for role, text in turns]
        framed.append({"messages": [*messages, {"role": "assistant", "content": each["response"]}]})
    path = write_audit(tmp_path, tiny_folder, framed, detection={"false_discovery_rate": 0.9})
    outcome = audit_inline(load_config(path), tmp_path / "run")
    scores = pd.read_parquet(tmp_path / "run" / "scores.parquet")
    names = {f"shop-{i}{suffix}" for i in range(3) for suffix in ("", "+frame")}
    assert set(scores["sentinel_id"]) == names
    assert set(scores["panel"]) == {"shop"}
    assert outcome.summary["coverage"]["guarded"] == {"shop": 3}
    lines = (tmp_path / "run" / "flags.jsonl").read_text().splitlines()
    flags = [json.loads(line) for line in lines]
    by_attribution = [flag for flag in flags if "stride" in flag["by"]]
    assert any(flag["sentinel_id"].endswith("+frame") for flag in by_attribution)
    for flag in by_attribution:
        is_framed = flag["sentinel_id"].endswith("+frame")
        assert ("in the system prompt that most rows have" in flag["reasons"][0]) == is_framed
        assert "You serve a shop" not in flag["reasons"][0]
