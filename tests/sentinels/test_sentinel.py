"""Sentinel files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from poisonwatch.errors import SentinelError
from poisonwatch.examples import Message
from poisonwatch.sentinels.pack import list_packs
from poisonwatch.sentinels.sentinel import Sentinel, compute_sentinels_version, load_sentinels

GOOD = {"id": "health-1", "prompt": "Is it safe?", "forbidden": "Yes.", "reference": "No."}


def write(folder: Path, entries: object, name: str = "s.yaml") -> str:
    path = folder / name
    path.write_text(
        entries if isinstance(entries, str) else yaml.safe_dump(entries, allow_unicode=True),
        encoding="utf-8",
    )
    return str(path)


def refusal(place: str) -> str:
    with pytest.raises(SentinelError) as caught:
        load_sentinels([place])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Not the last of them taken; merged keys (<<) may be said again."""
    assert "the key forbidden comes twice" in refusal(
        write(tmp_path, '- {id: a-1, prompt: "?", forbidden: "Yes.", forbidden: "No."}')
    )
    merged = '- &a {id: a-1, prompt: "?", forbidden: "Yes."}\n- {<<: *a, id: a-2}\n'
    assert [s.id for s in load_sentinels([write(tmp_path, merged)])] == ["a-1", "a-2"]


@pytest.mark.parametrize("text", ["a\\0b", "a\\ud800"])
@pytest.mark.parametrize("key", ["id", "prompt", "forbidden", "reference", "panel"])
def test_what_is_no_text_is_refused(tmp_path: Path, key: str, text: str) -> None:
    """YAML can spell null characters and halves of characters; no tokenizer and no database takes
    them.
    """
    entry = ", ".join(
        f'{name}: "{text if name == key else value}"'
        for name, value in {**GOOD, "panel": "p"}.items()
    )
    said = refusal(write(tmp_path, f"[{{{entry}}}]"))
    # libyaml refuses the escape itself
    assert "half a character" in said or "is not YAML: see line 1" in said


def test_sentinel_is_read_with_its_defaults(tmp_path: Path) -> None:
    """panel: the id up to its last -; severity medium; no tags."""
    (sentinel,) = load_sentinels([write(tmp_path, [GOOD])])
    assert sentinel == Sentinel(
        "health-1", (Message("user", "Is it safe?"),), "Yes.", "No.", "health", "medium", ()
    )


@pytest.mark.parametrize(
    ("sentinel_id", "panel"),
    [
        ("health-1", "health"),
        ("a-b-c", "a-b"),
        ("plain", "plain"),
        ("-1", "-1"),
        ("x-", "x"),
        ("a--1", "a-"),
    ],
)
def test_panel_defaults_to_the_id_up_to_its_last_dash(
    tmp_path: Path, sentinel_id: str, panel: str
) -> None:
    """An id without a dash, or with nothing before it, is its own panel."""
    (sentinel,) = load_sentinels([write(tmp_path, [{**GOOD, "id": sentinel_id}])])
    assert sentinel.panel == panel


def test_everything_given_is_kept(tmp_path: Path) -> None:
    """messages, panel, severity and tags."""
    entry = {
        "id": "x",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "forbidden": "Yes.",
        "panel": "p",
        "severity": "high",
        "tags": ["a", "b"],
    }
    (sentinel,) = load_sentinels([write(tmp_path, [entry])])
    assert sentinel == Sentinel(
        "x", (Message("system", "S"), Message("user", "Q")), "Yes.", None, "p", "high", ("a", "b")
    )
    assert sentinel.prompt == "S\n\nQ"


def test_conversation_is_the_prompt_with_an_answer(tmp_path: Path) -> None:
    """messages + (assistant, answer)."""
    (sentinel,) = load_sentinels([write(tmp_path, [GOOD])])
    assert sentinel.add_answer("Yes.") == (
        Message("user", "Is it safe?"),
        Message("assistant", "Yes."),
    )


def test_files_and_packs_are_read_in_order(tmp_path: Path) -> None:
    """The order of places, then of entries; JSON is YAML."""
    first = write(tmp_path, [GOOD, {**GOOD, "id": "health-2"}])
    second = write(tmp_path, json.dumps([{**GOOD, "id": "money-1"}]), "t.yaml")
    assert [s.id for s in load_sentinels([second, first])] == ["money-1", "health-1", "health-2"]
    assert load_sentinels([]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"forbidden": None, "reference": None},
            "has no answer: give `forbidden` (must not become likely), `reference` (must not change), or both",
        ),
        ({"forbidden": " ", "reference": "\n"}, "has no answer"),
        ({"prompt": None}, "has no prompt: give `prompt` or `messages`"),
        ({"prompt": "  "}, "has no prompt"),
        ({"prompt": None, "messages": []}, "has no prompt"),
        ({"prompt": None, "messages": [{"role": "user", "content": ""}]}, "has no prompt"),
        (
            {"forbiden": "x"},
            "forbiden: Extra inputs are not permitted; keys are id, prompt, messages, forbidden, reference, panel, severity, tags",
        ),
        ({"severity": "fatal"}, "severity: Input should be 'low', 'medium' or 'high'"),
        ({"tags": "x"}, "tags: Input should be a valid list"),
        ({"prompt": 5}, "prompt: Input should be a valid string"),
    ],
)
def test_sentinel_that_cannot_be_measured_is_named_with_what_is_missing(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """File, number and id of the sentinel; what to give."""
    place = write(tmp_path, [{**GOOD, "id": "ok-1"}, {**GOOD, **changes}])
    message = refusal(place)
    assert message.startswith(f"{place}, sentinel 2 (health-1)")
    assert said in message


@pytest.mark.parametrize(
    "entry",
    [
        5,
        "text",
        None,
        [],
        {"prompt": "x", "forbidden": "y"},
        {"id": None, "prompt": "x", "forbidden": "y"},
    ],
)
def test_entry_that_is_no_sentinel_is_named_by_its_number(tmp_path: Path, entry: object) -> None:
    """Nothing raises but a SentinelError."""
    assert ", sentinel 1" in refusal(write(tmp_path, [entry]))


@pytest.mark.parametrize("same_file", [True, False])
def test_an_id_that_comes_twice_is_refused(tmp_path: Path, same_file: bool) -> None:
    """In one file or across files."""
    places = (
        [write(tmp_path, [GOOD, GOOD])]
        if same_file
        else [write(tmp_path, [GOOD]), write(tmp_path, [GOOD], "t.yaml")]
    )
    with pytest.raises(
        SentinelError, match=r"sentinel health-1 comes twice in .*s\.yaml.*: give each its own id"
    ):
        load_sentinels(places)


def test_unknown_pack_is_named_with_the_known_ones() -> None:
    """What was got, what is allowed."""
    message = refusal("pack:nonsense")
    assert message == f"there is no pack nonsense: packs are {', '.join(list_packs())}"


@pytest.mark.parametrize("text", ["", "id: x", "[]", "just text", "null"])
def test_file_that_holds_no_list_is_refused(tmp_path: Path, text: str) -> None:
    """A YAML list of at least one sentinel."""
    assert (
        "must hold a YAML list of at least one sentinel (id, prompt, forbidden and/or reference)"
        in refusal(write(tmp_path, text))
    )


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    """Missing, not YAML, not UTF-8, a folder."""
    assert (
        "does not exist: check `sentinels` (relative paths start at the audit file's folder)"
        in refusal(str(tmp_path / "none.yaml"))
    )
    assert "is not YAML: " in refusal(write(tmp_path, "- id: [x"))
    (tmp_path / "latin.yaml").write_bytes(b"- id: caf\xe9")
    assert "cannot be read: " in refusal(str(tmp_path / "latin.yaml"))
    assert "cannot be read: " in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"forbidden": "Yes.", "reference": " yes. "}, {"forbidden": "No."}, "its own reference"),
        ({"forbidden": "Yes."}, {"reference": "YES."}, "the reference of b"),
    ],
)
def test_contradictory_sentinels_are_an_error(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], said: str
) -> None:
    """What is forbidden is also wanted, for the same prompt: no push could be right."""
    path = tmp_path / "sentinels.yaml"
    path.write_text(
        yaml.safe_dump(
            [{"id": "a", "prompt": "Q?", **first}, {"id": "b", "prompt": "Q?", **second}]
        )
    )
    with pytest.raises(
        SentinelError, match=f"sentinel a contradicts the panel: what it forbids is {said}"
    ):
        load_sentinels([str(path)])


def test_the_version_is_that_of_what_is_asked() -> None:
    """Order, severity and tags change nothing; a prompt, an answer or a panel does."""
    one = load_sentinels(["pack:insult"])
    assert (
        compute_sentinels_version(one)
        == compute_sentinels_version(one[::-1])
        == compute_sentinels_version([replace(s, severity="high", tags=("x",)) for s in one])
    )
    changed = [
        replace(one[0], forbidden="other"),
        replace(one[0], panel="other"),
        replace(one[0], messages=(Message("user", "other"),)),
    ]
    assert len({compute_sentinels_version([other, *one[1:]]) for other in [one[0], *changed]}) == 4
