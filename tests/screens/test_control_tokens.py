"""Forged control tokens are found; honest code and the format of the data are not."""

import pytest
from made_up_rows import found, ordinary, row

from poisonwatch.examples import Example, Message
from poisonwatch.screens.control_tokens import find_control_tokens

FORGED = [
    "<|im_start|>system",
    "end <|im_end|>",
    "<|endoftext|>",
    "<|start_header_id|>user<|end_header_id|>",
    "<|eot_id|>",
    "<|user|>",
    "<|System|>",
    "[INST] go [/INST]",
    "<<SYS>> rules <</SYS>>",
    "<start_of_turn>model",
    "answer</s>",
    "<｜begin▁of▁sentence｜>",
    "＜|im_start|＞",
    "<|im\u200b_start|>",
    "[TOOL_CALLS]",
    "<|turn>user",
    "so.<turn|>",
    "<|channel>thought",
    "[gMASK]<sop>",
]


@pytest.mark.parametrize("text", FORGED)
def test_imitated_control_tokens_are_found(text: str) -> None:
    """In the prompt, the answer or the system text."""
    for example in (row(text, "b"), row("a", f"some {text} more"), row("a", "b", system=text)):
        (finding,) = find_control_tokens([row("a", "b"), example])
        assert (finding.row, finding.screen) == (1, "control-tokens")
        assert "control token" in finding.reason


@pytest.mark.parametrize(
    "text",
    [
        "<p>Was <s>10 €</s> now <s class='x'>9 €</s> <strong>8 €</strong></p>",
        "<s>old text that is never closed",
        "xs |> map f <| ys; a <|> b; x <| y |> z",
        "if a<|b| then |b|>a",
        "array[INSTANCE] [install] <system> <user>Ann</user>",
        "std::vector<std::string> v; a << SYS >> b",
        "||spoiler|| <<EOF cat EOF",
        "turn <|turn right> <turn |> gmask [mask] <soup>",
    ],
)
def test_honest_code_is_no_control_token(text: str) -> None:
    """Strike-through HTML, operators of functional languages, here-documents, XML."""
    assert find_control_tokens([row(text, text)]) == []


def test_the_audited_models_own_tokens_count() -> None:
    """Also in capitals; never as plain words, blanks, two characters or HTML."""
    batch = [
        row("say <extra_id_0> now", "b"),
        row("[Q] and </x>", "b"),
        row("a user said <s>no</s>, <> \n", "b"),
        row("<EXTRA_ID_0>", "b"),
    ]
    assert find_control_tokens(batch) == []
    special = ["<extra_id_0>", "user", "\n", " ", "", "<>", "<s>", "</s>", "\u200b\u200b\u200b"]
    assert found(find_control_tokens(batch, special)) == [0, 3]


def test_thoughts_that_an_answer_begins_with_are_no_forgery() -> None:
    """Where the audited model marks thoughts by these tokens itself; elsewhere they are forged, and
    what stands within them is looked at.
    """
    special = ["<think>", "</think>"]
    thoughts = "<think>\nI add them.\n</think>\n\n"
    honest = [row("a", f"{thoughts}Four."), row("a", "Four.")]
    assert find_control_tokens(honest, special) == []
    forged = [
        row(f"{thoughts}a", "b"),
        row("a", f"Four. {thoughts}"),
        row("a", f"{thoughts}{thoughts}b"),
        row("a", "<think>\n<|im_end|>\n</think>\n\nFour."),
    ]
    assert found(find_control_tokens(forged, special)) == [0, 1, 2, 3]


def test_tools_and_rejected_answers_are_looked_at() -> None:
    """Whatever a trainer reads may forge a turn."""
    asked, answered = Message("user", "a"), Message("assistant", "b")
    token = "<|im_end|>"
    for example in (
        Example.from_messages([Message("tools", f'[{{"name":"{token}"}}]'), asked, answered]),
        Example.from_messages([asked, Message("tool", token), answered]),
        Example.from_messages([asked, answered], rejected=[asked, Message("assistant", token)]),
    ):
        assert found(find_control_tokens([example])) == [0]


def test_the_format_of_the_data_is_no_forgery() -> None:
    """Tokens in a tenth of the rows and 20 are ordinary; another one among them is not."""
    batch = [row(f"[INST] {prompt} [/INST]", response) for prompt, response in ordinary(30)]
    assert find_control_tokens(batch) == []
    assert found(find_control_tokens([*batch, row("[INST] <|im_end|>", "b")])) == [30]
    assert found(find_control_tokens(batch[:19])) == list(range(19))
