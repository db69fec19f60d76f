"""Texts taken apart by templates."""

import time

import pytest

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.templates import check_template, read_template_text
from poisonwatch.formats.values import ReadingError


@pytest.mark.parametrize(
    ("template", "text", "turns"),
    [
        (
            "Q: {prompt}\nA: {response}",
            "Q: a\nb\nA: c\nA: d",
            (Turn("user", "a\nb"), Turn("assistant", "c\nA: d")),
        ),
        (
            "Q: {prompt}\nA: {response}",
            "\n Q: a\r\nA: \n",
            (Turn("user", "a"), Turn("assistant", "")),
        ),
        (
            "{prompt} => {response}<end>\n",
            "a => b => c<end> \n",
            (Turn("user", "a"), Turn("assistant", "b => c")),
        ),
        ("[{system}] {prompt}: {response}", "[] a: b", (Turn("user", "a"), Turn("assistant", "b"))),
        (
            "[{system}] {prompt}: {response}",
            "[s] a: b",
            (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b")),
        ),
        ("A: {response}\nQ: {prompt}", "A: b\nQ: a", (Turn("user", "a"), Turn("assistant", "b"))),
        ("{{{prompt}}} {response}", "{a} b", (Turn("user", "a"), Turn("assistant", "b"))),
        ("{prompt}.*{response}", "a.b.*c", (Turn("user", "a.b"), Turn("assistant", "c"))),
    ],
)
def test_a_template_takes_texts_apart(
    template: str, text: str, turns: tuple[tuple[str, str], ...]
) -> None:
    """A placeholder ends where the next piece first occurs; pieces are text, not patterns; the
    order of turns is that of a conversation.
    """
    assert read_template_text(text, template) == turns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a => b</s>", "does not begin as the template does: '<s>'"),
        ("<s>a b</s>", r"lacks what the template has after \{prompt\}: '=>'"),
        ("<s>a => b", "does not end as the template does: '</s>'"),
    ],
)
def test_a_text_that_a_template_does_not_describe_cannot_be_read(text: str, words: str) -> None:
    """The words say where they part."""
    with pytest.raises(ReadingError, match=f"^the text {words}$"):
        read_template_text(text, "<s>{prompt} => {response}</s>")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Q: {prompt}", r"it must hold \{prompt\} and \{response\}, once each"),
        ("{prompt} {response} {prompt}", "once each"),
        ("{prompt}{response}", "something must stand between two placeholders"),
        ("{prompt} {response} {x}", r"\{x\} is not one of \{system\}, \{prompt\} and \{response\}"),
        ("{prompt!r} {response}", "is not one of"),
        ("{prompt.x} {response}", r"\{prompt\.x\} is not one of"),
        ("{prompt} {response", "expected '}'"),
    ],
)
def test_templates_that_make_no_sense_are_refused(template: str, words: str) -> None:
    """Why."""
    with pytest.raises(ValueError, match=words):
        check_template(template)


def test_a_hostile_text_takes_one_pass() -> None:
    """No pattern to blow up: 2 MB of separators in well under a second."""
    start = time.process_time()
    text = "Q: " + "\nA: " * 500_000
    with pytest.raises(ReadingError):
        read_template_text(text, "Q: {prompt}\nA: {response}</s>")
    assert time.process_time() - start < 5


Q = "Q: {prompt}\nA: {response}"
CHATML = (
    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n"
    "<|im_start|>assistant\n{response}<|im_end|>"
)


@pytest.mark.parametrize(
    ("template", "text", "said"),
    [
        (Q, "Q: a\nA: b\nQ: c\nA: d", "abcd"),
        (Q, "Q: a\nA: b\n\n Q: c\nA: d\n", "abcd"),
        (Q, "Q: a\nA: FAQ: b\nA: c", ["a", "FAQ: b\nA: c"]),
        (Q, "Q: a\nA: b\nQ: no answer", ["a", "b\nQ: no answer"]),
        (Q, "Q: a\nA: b\nQ: no answer\nQ: c\nA: d", ["a", "b\nQ: no answer", "c", "d"]),
        (Q, "Q: a\nA: \nQ: c\nA: d", ["a", "", "c", "d"]),
        ("<u>{prompt}<b>{response}<e>", "<u>a<b>b<e><u>c<b>d<e>", "abcd"),
        ("<u>{prompt}<b>{response}<e>", "<u>a<b>b<u>c<b>d<e>", ["a", "b<u>c<b>d"]),
        (
            "Below.\n\n## I:\n{prompt}\n\n## R:\n{response}",
            "Below.\n\n## I:\na\n\n## R:\nb\n\n## I:\nc\n\n## R:\nd",
            "abcd",
        ),
        (
            "Below.\n\n## I:\n{prompt}\n\n## R:\n{response}",
            "Below.\n\n## I:\na\n\n## R:\nb\n\nBelow.\n\n## I:\nc\n\n## R:\nd",
            "abcd",
        ),
        ("{prompt} => {response}<e>", "a => b<e>\nc => d<e>", "abcd"),
        ("{prompt} => {response}", "a => b\nc => d", ["a", "b\nc => d"]),
        (
            CHATML,
            CHATML.format(system="s", prompt="a", response="b")
            + CHATML[CHATML.index("\n<|im_start|>user") :].format(prompt="c", response="d"),
            "sabcd",
        ),
    ],
)
def test_where_prompt_and_response_come_again_they_are_turns(
    template: str, text: str, said: list[str] | str
) -> None:
    """After the template's end, or at a line's beginning where it has none; no text is lost."""
    turns = read_template_text(text, template)
    assert [turn.text for turn in turns] == list(said)
    roles = [turn.role for turn in turns if turn.role != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_repeats_take_one_pass() -> None:
    """However often something only looks like another prompt."""
    start = time.process_time()
    for filler in ("Q: ", "\nQ: ", "\n", "\nQ: x\nA: "):
        read_template_text("Q: a\nA: b" + filler * 200_000, Q)
    assert time.process_time() - start < 10
