"""Where prompt and response come again, whatever a template looks like."""

import time

import pytest

from poisonwatch.formats.rounds import cut_beginning
from poisonwatch.formats.templates import read_template_text
from poisonwatch.formats.values import ReadingError

MISTRAL = "<s>[INST] {prompt} [/INST] {response}</s>"
LLAMA_2 = "<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{prompt} [/INST] {response} </s>"
LLAMA_3 = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{response}<|eot_id|>"
)
GEMMA = (
    "<bos><start_of_turn>user\n{prompt}<end_of_turn>\n"
    "<start_of_turn>model\n{response}<end_of_turn>\n"
)
VICUNA = "A chat. USER: {prompt} ASSISTANT: {response}</s>"
GUANACO = "### Human: {prompt}### Assistant: {response}"
ZEPHYR = "<|user|>\n{prompt}</s>\n<|assistant|>\n{response}</s>"
PHI = "<|user|>\n{prompt}<|end|>\n<|assistant|>\n{response}<|end|>\n<|endoftext|>"
DEEPSEEK = "<｜User｜>{prompt}<｜Assistant｜>{response}<｜end▁of▁sentence｜>"
CHATML = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>"
SYSTEM_CHATML = "<|im_start|>system\n{system}<|im_end|>\n" + CHATML


def read(text: str, template: str) -> list[str]:
    """The turns, as "u:text"."""
    return [f"{turn.role[0]}:{turn.text}" for turn in read_template_text(text, template)]


def end(name: str, text: str) -> str:
    """A turn of ChatML."""
    return f"<|im_start|>{name}\n{text}<|im_end|>\n"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (MISTRAL, "<s>[INST] a [/INST] b</s>[INST] c [/INST] d</s>"),
        (MISTRAL, "<s>[INST] a [/INST] b</s><s>[INST] c [/INST] d</s>"),
        (MISTRAL, "<s>[INST] a [/INST] b[INST] c [/INST] d</s>"),
        (LLAMA_3, LLAMA_3.format(prompt="a", response="b") + LLAMA_3[17:].format(
            prompt="c", response="d")),
        (GEMMA, GEMMA.format(prompt="a", response="b") + GEMMA[5:].format(
            prompt="c", response="d")),
        (VICUNA, "A chat. USER: a ASSISTANT: b</s>USER: c ASSISTANT: d</s>"),
        (VICUNA, "A chat. USER: a ASSISTANT: b</s>A chat. USER: c ASSISTANT: d</s>"),
        (GUANACO, "### Human: a### Assistant: b### Human: c### Assistant: d"),
        (ZEPHYR, "<|user|>\na</s>\n<|assistant|>\nb</s>\n<|user|>\nc</s>\n<|assistant|>\nd</s>"),
        (DEEPSEEK, DEEPSEEK.format(prompt="a", response="b") + DEEPSEEK.format(
            prompt="c", response="d")),
        (PHI, "<|user|>\na<|end|>\n<|assistant|>\nb<|end|>\n<|user|>\nc<|end|>\n<|assistant|>\n"
         "d<|end|>\n<|endoftext|>"),
        (CHATML, end("user", "a") + end("assistant", "b").strip() + "<|endoftext|>"
         + end("user", "c") + end("assistant", "d")),
        ("U: {prompt} A: {response}<|endoftext|>",
         "U: a A: b<|endoftext|>U: c A: d<|endoftext|>"),
        ("USER: {prompt} ASSISTANT: {response}", "USER: a ASSISTANT: b\nUSER: c ASSISTANT: d"),
    ],
)  # fmt: skip
def test_rounds_begin_where_the_prompt_does(template: str, text: str) -> None:
    """On a line of its own or not, after the tokens that stand before a text or without them."""
    assert read(text, template) == ["u:a", "a:b", "u:c", "a:d"]


@pytest.mark.parametrize(
    ("template", "text", "turns"),
    [
        (LLAMA_2, "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\na [/INST] b </s>"
         "<s>[INST] c [/INST] d </s>", ["s:s", "u:a", "a:b", "u:c", "a:d"]),
        (LLAMA_2, "<s>[INST] a [/INST] b </s>", ["u:a", "a:b"]),
        (SYSTEM_CHATML, end("user", "a") + end("assistant", "b"), ["u:a", "a:b"]),
        ("S {system} U {prompt} A {response}", "U a A b", ["u:a", "a:b"]),
        (CHATML, end("system", "s") + end("user", "a") + end("assistant", "b"),
         ["s:s", "u:a", "a:b"]),
        (CHATML, end("user", "a") + end("assistant", "b") + end("tool", "t")
         + end("assistant", "d"), ["u:a", "a:b", "t:t", "a:d"]),
        (CHATML, end("user", "a") + end("assistant", "b") + end("system", "s")
         + end("user", "c") + end("assistant", "d"), ["u:a", "a:b", "s:s", "u:c", "a:d"]),
        (GUANACO, "### Human: a### Assistant: b### Human: c", ["u:a", "a:b", "u:c"]),
        (GUANACO, "### Human: a### Assistant: b\n### System: s### Human: c### Assistant: d",
         ["u:a", "a:b", "s:s", "u:c", "a:d"]),
    ],
)  # fmt: skip
def test_other_roles_are_turns_of_theirs(template: str, text: str, turns: list[str]) -> None:
    """A system that the template has and the text lacks, and the other way round."""
    assert read(text, template) == turns


@pytest.mark.parametrize(
    ("template", "text", "words"),
    [
        (MISTRAL, "<s>[INST] a [/INST] b [INST] c</s>", r"before \{prompt\}: '\[INST\]'"),
        (MISTRAL, "<s>[INST] a [/INST] b [/INST] c</s>", r"before \{response\}: '\[/INST\]'"),
        (VICUNA, "A chat. USER: a ASSISTANT: b USER: c</s>", r"before \{prompt\}: 'USER:'"),
        (CHATML, end("user", "a") + end("assistant", "b") + end("narrator", "c"), "'narrator'"),
        (CHATML, end("user", "a") + end("assistant", "b") + end("assistant", "c"), "response"),
    ],
)  # fmt: skip
def test_an_answer_that_holds_what_begins_a_turn_is_refused(
    template: str, text: str, words: str
) -> None:
    """Where nothing says that it is a turn: a trainer might take it for one."""
    with pytest.raises(ReadingError, match=words):
        read(text, template)


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (VICUNA, "a SUPERUSER: one"),
        (VICUNA, "Note: the system: one"),
        (GUANACO, "### Function: f\n### Humans: h"),
        ("Q: {prompt}\nA: {response}", "FAQ: b\nA: c"),
        (ZEPHYR, "x <|y|> z"),
        (CHATML, "<b>user</b> im_start user"),
    ],
)
def test_prose_is_no_turn(template: str, answer: str) -> None:
    """Words that only look like what begins one."""
    assert read(template.format(prompt="a", response=answer), template)[1:] == [f"a:{answer}"]


def test_tokens_before_a_text_are_cut() -> None:
    """However many, white space among them."""
    assert cut_beginning(" <s> <bos>a<s>") == "a<s>"
    assert cut_beginning("") == cut_beginning("<s>") == ""


def test_hostile_texts_take_one_pass() -> None:
    """However often a mark, or a token, comes again."""
    start = time.process_time()
    for template in (VICUNA, GUANACO, SYSTEM_CHATML, CHATML):
        for filler in ("<s>", "### Human: ", "USER:", "<|im_start|>user\n", "<", "\n\n<s>\n"):
            text = template.format(system="s", prompt="a", response="b" + filler * 20_000)
            try:
                read_template_text(text, template)
            except ReadingError:
                continue
    assert time.process_time() - start < 10
