"""The page of formats, and whatever else rows of every format must keep to."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import ALIASES
from poisonwatch.formats.format import Draft, Format, detect_format
from poisonwatch.formats.messages import CALL_KEYS, MASKED_KEYS, THOUGHT_KEYS, TRAINED_KEYS
from poisonwatch.formats.roles import ROLE_NAMES
from poisonwatch.formats.shapes import SHAPES

PAGE = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")


def read_table(head: str) -> list[list[str]]:
    """The cells of the table whose first column is called so, code without its marks."""
    _, _, rest = PAGE.partition(f"\n| {head} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line[1:-1].split(" | ")] for line in lines]


LINES = read_table("format")


def describe(draft: Draft) -> str:
    """As the page's column `turns` says it."""
    said = describe_turns(draft.turns)
    if draft.rejected:
        said += f", rejected: {describe_turns(draft.rejected)}"
    if draft.lowered:
        said += ", lowered"
    return said


def describe_turns(turns: tuple[Turn, ...]) -> str:
    names = []
    for turn in turns:
        trained = turn.role == "assistant" and not turn.masked
        names.append(turn.role + "*" * trained)
    return " ".join(names)


@pytest.mark.parametrize(
    ("name", "line", "turns", "unread"),
    [(name, line, turns, unread) for name, _, line, turns, unread in LINES],
    ids=[f"{name} {who}" for name, who, *_ in LINES],
)
def test_every_line_of_the_page_is_read_as_it_says(
    name: str, line: str, turns: str, unread: str
) -> None:
    """Format, turns, which are trained, and what is left over; nothing is lost."""
    record = json.loads(line)
    format = detect_format([record], "rows.jsonl")
    draft = format.read(record)
    assert format.name == name
    assert (describe(draft), ", ".join(draft.unread)) == (turns, unread)
    assert find_lost(record, draft) == []
    assert Format(**json.loads(json.dumps(format.settings))) == format


def test_the_page_has_every_format() -> None:
    """Beside those of fields, texts by a template."""
    assert len(LINES) > 40
    assert {name for name, *_ in LINES} | {"text"} == set(SHAPES)
    for template, line, turns in read_table("template"):
        format = Format("text", template=template.replace("\\n", "\n"))
        assert describe(format.read(json.loads(line))) == turns


@pytest.mark.parametrize(("head", "names"), [("field", ALIASES), ("role", ROLE_NAMES)])
def test_the_page_has_every_name(head: str, names: Mapping[str, tuple[str, ...]]) -> None:
    """Of fields and of roles, in order; and the keys of messages."""
    shown = {}
    for name, others in read_table(head):
        shown[name] = tuple(re.findall(r"[^`, ]+", others))
    assert shown == dict(names)
    for key in (*THOUGHT_KEYS, *CALL_KEYS, *TRAINED_KEYS, *MASKED_KEYS):
        assert f"`{key}`" in PAGE


def find_lost(record: Mapping[str, Any], draft: Draft) -> list[str]:
    """Texts of a record that are in no turn and in no field that is told as unread."""
    if draft.problem is not None:
        return []
    said = "\n".join(turn.text or "" for turn in (*draft.turns, *draft.rejected))
    lost = []
    for path, text in list_texts(record):
        is_told = any(path == name or path.startswith(name + ".") for name in draft.unread)
        if not is_told and not is_said(text, said) and path.rpartition(".")[2] not in ROLE_KEYS:
            lost.append(f"{path}: {text}")
    return lost


ROLE_KEYS = ("role", "from", "author", "type", "label")


def is_said(text: str, said: str) -> bool:
    """Does a text stand in what is said: as it is, in JSON, or as JSON or a transcript itself?"""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    if text.strip() in said or escaped in said:
        return True
    try:
        value = json.loads(text)
    except ValueError:
        lines = [line.partition(":")[2].strip() for line in text.split("\n\n") if line]
        return bool(lines) and all(line in said for line in lines)
    inner = [(path, found) for path, found in list_texts({"": value}) if path != ".role"]
    return all(is_said(found, said) for _, found in inner)


def list_texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a record, each with the names that lead to it."""
    if isinstance(value, str) and value.strip():
        yield path, value
    if isinstance(value, list):
        for item in value:
            yield from list_texts(item, path)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from list_texts(item, f"{path}.{key}".removeprefix("."))


WORDS = st.text("abc d", min_size=1, max_size=6).map(lambda text: f"w{text}w".replace(" ", "_"))
EXTRA = st.dictionaries(
    st.sampled_from(["id", "score", "note", "output", "system", "history", "context", "Input"]),
    WORDS | st.none() | st.integers(0, 9) | st.lists(WORDS, max_size=2),
    max_size=3,
)
ROLES = st.sampled_from(["user", "assistant"])
KEYS = ["reasoning_content", "name", "weight", "refusal", "tool_calls", "train", "note"]


@st.composite
def messages(draw: st.DrawFn, keys: tuple[str, str] = ("role", "content")) -> list[dict[str, Any]]:
    """Messages with any of the keys that trainers know, and some that they do not."""
    found = []
    for role in ["user", "assistant", *draw(st.lists(ROLES, max_size=3))]:
        message: dict[str, Any] = {keys[0]: role, keys[1]: draw(WORDS | contents())}
        for key in draw(st.lists(st.sampled_from(KEYS), max_size=2, unique=True)):
            message[key] = [{"name": draw(WORDS)}] if key == "tool_calls" else draw(WORDS)
        found.append(message)
    return found


@st.composite
def contents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Parts of a content."""
    kinds = [
        {"type": "text", "text": draw(WORDS)},
        {"text": draw(WORDS), "note": draw(WORDS)},
        {"type": "thinking", "thinking": draw(WORDS), "signature": draw(WORDS)},
        {"type": "tool_use", "name": draw(WORDS), "input": {"x": draw(WORDS)}},
        {"type": "tool_result", "content": draw(WORDS), "tool_use_id": draw(WORDS)},
        {"functionCall": {"name": draw(WORDS)}},
        {"text": draw(WORDS), "thought": True, "note": draw(WORDS)},
    ]
    return draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))


def fixed(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


TEXT_OR_MESSAGES = WORDS | messages()
ROWS = st.one_of(
    fixed(messages=messages(), tools=st.lists(fixed(name=WORDS), max_size=2), label=st.booleans()),
    fixed(messages=messages().map(json.dumps)),
    fixed(conversations=messages(("from", "value")), system=WORDS),
    fixed(contents=messages(("role", "parts")), system=st.lists(
        fixed(text=WORDS, note=WORDS), min_size=1, max_size=2)),
    fixed(messages=messages(), systemInstruction=fixed(parts=st.lists(WORDS, min_size=1), note=WORDS)),
    fixed(instruction=WORDS, input=WORDS, output=WORDS, history=st.lists(st.lists(
        WORDS, min_size=2, max_size=2), max_size=2)),
    fixed(prompt=TEXT_OR_MESSAGES, completion=WORDS, reasoning=WORDS, context=WORDS),
    fixed(Query=WORDS, Response=WORDS, thinking=WORDS, cot=WORDS),
    fixed(question=WORDS, answer=WORDS, response=WORDS),
    fixed(prompt=TEXT_OR_MESSAGES, chosen=TEXT_OR_MESSAGES, rejected=TEXT_OR_MESSAGES),
    fixed(messages=messages(), rejected_response=WORDS),
    fixed(messages=messages(), chosen=WORDS, rejected=WORDS, prompt=WORDS),
    fixed(conversation=st.lists(fixed(system=WORDS, input=WORDS | contents(),
        output=WORDS | contents(), note=WORDS),
        min_size=1, max_size=2)),
    fixed(input=fixed(messages=messages(), note=WORDS), preferred_output=messages(),
        non_preferred_output=messages()),
)  # fmt: skip


@settings(derandomize=True, max_examples=150)
@given(row=ROWS, extra=EXTRA)
def test_no_text_of_a_row_is_lost(row: dict[str, Any], extra: dict[str, Any]) -> None:
    """Each stands in a turn, or its field is told as unread; or the row says why it cannot be
    read.
    """
    record = {**extra, **row}
    format = detect_format([record], "f")
    assert find_lost(record, format.read(record)) == []


@settings(derandomize=True, max_examples=60)
@given(row=ROWS, extra=EXTRA)
def test_rows_read_alike_whatever_the_order_of_their_fields(
    row: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Files and tables put them in any order; what is nothing, and NaN, changes nothing."""
    record = {**extra, **row}
    turned = dict(reversed(record.items())) | {"response_2": None, "nothing": float("nan")}
    drafts = [detect_format([each], "f").read(each) for each in (record, turned)]
    assert drafts[0].turns == drafts[1].turns
    assert (drafts[0].rejected, drafts[0].lowered) == (drafts[1].rejected, drafts[1].lowered)
    assert set(drafts[0].unread) == set(drafts[1].unread)
