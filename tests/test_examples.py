"""What makes two rows the same, and which rows of an audit are new."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from poisonwatch.examples import (
    AuditRows,
    Example,
    Message,
    SelectedExamples,
    compute_content_id,
)
from poisonwatch.packed_examples import PackedExamples


def messages(user: str = "Hi", assistant: str = "Hello") -> list[Message]:
    return [Message("user", user), Message("assistant", assistant)]


def test_id_is_the_hash_of_the_canonical_messages() -> None:
    """SHA-256 of [{"content":...,"role":...},...]: other programs can recompute it."""
    canonical = '[{"content":"Hi","role":"user"},{"content":"Hello","role":"assistant"}]'
    assert compute_content_id(messages()) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a \t\n", "a"),
        ("a\u00a0", "a"),
    ],
    ids=["NFC", "CRLF", "CR", "space at the end", "no-break space"],
)
def test_spelling_that_a_reader_cannot_see_does_not_change_the_id(one: str, other: str) -> None:
    """Unicode NFC, line ends, white space at the end."""
    assert compute_content_id(messages(one, one)) == compute_content_id(messages(other, other))


@pytest.mark.parametrize("text", ['a"b\\c', "\x00\x1f\x7f\t\n", "\u2028é😀", "\ud800"])
def test_ids_are_those_of_ordinary_json(text: str) -> None:
    """Quotes, control characters and all else are escaped as json.dumps does."""
    rows = [{"content": text.rstrip(), "masked": True, "role": "assistant"}]
    of_kinds = [
        ((rows), {}),
        ({"chosen": rows, "rejected": rows}, {"rejected": [Message("assistant", text, True)]}),
        ({"chosen": [], "rejected": rows}, {"lowered": True}),
    ]
    for content, more in of_kinds:
        written = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        expected = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
        assert compute_content_id([Message("assistant", text, True)], **more) == expected


def test_content_changes_the_id() -> None:
    """Case, leading and inner space, order, role and the border between turns all count."""
    variants = [
        messages("Hi", "Hello"),
        messages("hi", "Hello"),
        messages("H i", "Hello"),
        messages(" Hi", "Hello"),
        messages("Hi", "\tHello"),
        messages("Hello", "Hi"),
        [Message("system", "Hi"), Message("assistant", "Hello")],
        [*messages("Hi", "Hello"), Message("user", "")],
        messages('Hi","role":"user"},{"content":"', "Hello"),
    ]
    assert len({compute_content_id(v) for v in variants}) == len(variants)


def test_roles_are_compared_in_lower_case() -> None:
    """role -> strip, lower."""
    assert compute_content_id([Message(" User ", "Hi")]) == compute_content_id(
        [Message("user", "Hi")]
    )


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\x00", "\U0010ffff", ""])
def test_every_text_has_an_id(text: str) -> None:
    """Half surrogates, which JSON can spell and UTF-8 cannot, are hashed too, each differently."""
    assert len(compute_content_id(messages(text))) == 64
    assert compute_content_id(messages(text + "x")) != compute_content_id(messages(text))


def test_place_and_metadata_do_not_change_the_id() -> None:
    """The same content is the same example wherever it stands."""
    here, there = (Example.from_messages(messages(), f"{i}.jsonl", i, {"i": i}) for i in (1, 2))
    assert here.id == there.id
    assert len({here, here}) == 1


def test_prompt_and_response_join_their_turns() -> None:
    """Turns joined by blank lines; system and tool belong to the prompt."""
    example = Example.from_messages(
        [Message("system", "S"), *messages(), Message("tool", "T"), *messages("Bye", "Ciao")]
    )
    assert example.prompt == "S\n\nHi\n\nT\n\nBye"
    assert example.response == "Hello\n\nCiao"


def test_a_rejected_conversation_belongs_to_the_content() -> None:
    """SHA-256 of {"chosen":[...],"rejected":[...]} with the messages as ever; without one the id is
    that of the messages alone.
    """
    chosen, rejected = messages("Hi", "Hello\r\n"), messages("Hi", "Bye")
    turns = [
        f'[{{"content":"Hi","role":"user"}},{{"content":"{text}","role":"assistant"}}]'
        for text in ("Hello", "Bye")
    ]
    canonical = f'{{"chosen":{turns[0]},"rejected":{turns[1]}}}'
    example = Example.from_messages(chosen, rejected=rejected)
    assert (
        example.id
        == compute_content_id(chosen, rejected)
        == hashlib.sha256(canonical.encode()).hexdigest()
    )
    assert (
        compute_content_id(chosen)
        == compute_content_id(chosen, [])
        == hashlib.sha256(turns[0].encode()).hexdigest()
    )
    assert (
        len(
            {
                compute_content_id(chosen, rejected),
                compute_content_id(rejected, chosen),
                compute_content_id(chosen),
                compute_content_id([*chosen, *rejected]),
            }
        )
        == 4
    )


def test_what_is_rejected_is_no_part_of_prompt_and_response() -> None:
    """response is what training raises; rejected_response what it lowers, empty in an ordinary row."""
    example = Example.from_messages(messages("Hi", "Hello"), rejected=messages("Hi", "Bye"))
    assert (example.prompt, example.response, example.rejected_response) == ("Hi", "Hello", "Bye")
    assert Example.from_messages(messages()).rejected_response == ""


NEW = tuple(Example.from_messages(messages(f"new {i}")) for i in range(3))
TRUSTED = tuple(Example.from_messages(messages(f"trusted {i}")) for i in range(2))


def test_new_and_trusted_rows_stand_in_one_order() -> None:
    """all[i] is new for i in new_places, trusted for i in trusted_places, and ids follow it."""
    rows = AuditRows(NEW, TRUSTED)
    assert [rows.all[i] for i in rows.new_places] == list(NEW)
    assert [rows.all[i] for i in rows.trusted_places] == list(TRUSTED)
    assert rows.ids == tuple(example.id for example in rows.all)
    assert len(rows) == len(rows.all) == 5
    assert AuditRows(NEW).trusted_places == range(3, 3)


@pytest.mark.parametrize("places", [slice(1, 4), slice(None, None, -2), slice(3, 3), slice(-1, 9)])
def test_both_kinds_of_rows_are_one_sequence(places: slice) -> None:
    """all[a:b:c] is what it is of new + trusted, and so are its ids, ends and iteration."""
    joined, plain = AuditRows(NEW, TRUSTED).all, NEW + TRUSTED
    assert tuple(joined) == plain
    assert tuple(joined[places]) == plain[places]
    assert joined[places].ids == tuple(example.id for example in plain[places])
    assert (joined[-1], joined[-5]) == (plain[-1], plain[0])
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            joined[beyond]


def test_rows_in_a_file_are_neither_copied_nor_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roles, the check of them and ids need the column of ids alone."""
    packed = PackedExamples.write(tmp_path / "rows.arrow", NEW)
    monkeypatch.setattr(Message, "__init__", None)
    rows = AuditRows(packed, TRUSTED)
    assert rows.new is packed
    assert rows.ids == tuple(example.id for example in NEW + TRUSTED)
    with pytest.raises(ValueError, match="1 of 1 trusted rows are among the new ones"):
        AuditRows(packed, NEW[2:])
    with pytest.raises(ValueError, match="2 of 2 trusted rows are among the new ones"):
        AuditRows(NEW, packed[1:])


def test_values_of_all_rows_are_split_by_role() -> None:
    """split(v) = (v[new], v[trusted]), of arrays along the first axis; another length is an error."""
    rows = AuditRows(NEW, TRUSTED)
    values = np.arange(10).reshape(5, 2)
    new, trusted = rows.split(values)
    np.testing.assert_array_equal(new, values[list(rows.new_places)])
    np.testing.assert_array_equal(trusted, values[list(rows.trusted_places)])
    assert tuple(map(tuple, rows.split(rows.all))) == (NEW, TRUSTED)
    for other in (4, 6):
        with pytest.raises(ValueError, match=f"got {other} values for 5 rows"):
            rows.split(range(other))


def test_no_row_is_new_and_trusted_at_once() -> None:
    """By content: where it stands does not matter."""
    moved = Example.from_messages(NEW[0].messages, "elsewhere", 7)
    with pytest.raises(ValueError, match="1 of 3 trusted rows are among the new ones"):
        AuditRows(NEW, (*TRUSTED, moved))


def test_selected_examples_are_those_at_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a list or a file; ids of packed rows come without making an example."""
    rows = NEW + TRUSTED
    packed = PackedExamples.write(tmp_path / "rows.arrow", rows)
    for some in (SelectedExamples(rows, [0, 2, 3]), SelectedExamples(packed, [0, 2, 3])):
        assert list(some) == [rows[0], rows[2], rows[3]]
        assert list(some[::-1][:2]) == [rows[3], rows[2]]
        assert some[1:].ids == (rows[2].id, rows[3].id)
    assert SelectedExamples.of(packed, range(len(rows))) is packed
    monkeypatch.setattr(Message, "__init__", None)
    assert AuditRows(SelectedExamples.of(packed, [1, 4])).ids == (rows[1].id, rows[4].id)
