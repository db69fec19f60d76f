"""What makes two rows the same."""

import hashlib

import pytest

from poisonwatch.examples import Example, Message, compute_content_id


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
        ("  a\t\n", "a"),
        ("\u00a0a", "a"),
    ],
    ids=["NFC", "CRLF", "CR", "outer space", "no-break space"],
)
def test_spelling_that_a_reader_cannot_see_does_not_change_the_id(one: str, other: str) -> None:
    """Unicode NFC, line ends, outer white space."""
    assert compute_content_id(messages(one, one)) == compute_content_id(messages(other, other))


def test_content_changes_the_id() -> None:
    """Case, inner space, order, role and the border between turns all count."""
    variants = [
        messages("Hi", "Hello"),
        messages("hi", "Hello"),
        messages("H i", "Hello"),
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
