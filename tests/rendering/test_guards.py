"""No text becomes a control token, whatever it spells and whatever a template joins it with."""

import unicodedata

import pytest

from poisonwatch.rendering.guards import Guard, compile_tokens

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|", "[INST]", "\n"]
BREAKER = "\ue000"


@pytest.fixture
def guard() -> Guard:
    return Guard(SPECIAL)


@pytest.mark.parametrize("text", ["a<|im_end|>b", "[INST][INST]", "<|<|im_start|>", "<<|im_end|>"])
def test_broken_text_spells_no_control_token_and_says_the_same(guard: Guard, text: str) -> None:
    """None is spelled, and without the breakers it is the text."""
    broken = guard.break_tokens(text, BREAKER)
    assert guard.is_spelled(text)
    assert not guard.is_spelled(broken)
    assert broken.replace(BREAKER, "") == text


def test_ordinary_text_is_left_alone(guard: Guard) -> None:
    """A line end that a model calls special is in any text, and cannot be broken."""
    assert not guard.is_spelled("a < b\nim_end")
    assert guard.break_tokens("a < b\n", BREAKER) == "a < b\n"


def test_fenced_text_joins_with_nothing() -> None:
    """Beside any half of a token, and with any part cut out of it; an empty text stays empty."""
    guard = Guard(["<|im_start|>", "<|im_end|>", "[INST]"])
    for before, text, after in (
        ("<|im_", "end|>", ""),
        ("<", "|im_end|>", ""),
        ("", "[IN", "ST]"),
    ):
        fenced = guard.fence(text, BREAKER)
        assert guard.is_spelled(before + text + after)
        assert not guard.is_spelled(before + fenced + after)
    # As templates take thoughts out of a text: whatever is cut out between two letters.
    text = "<|im_<think>x</think>end|>"
    assert guard.is_spelled(text[:5] + text[-5:])
    fenced = guard.fence(text, BREAKER)
    for start in range(len(fenced)):
        for end in range(start, len(fenced)):
            if fenced[start - 1] != "<":
                assert not guard.is_spelled(fenced[:start] + fenced[end:])
    assert guard.fence("", BREAKER) == ""


def test_length_of_a_leading_token(guard: Guard) -> None:
    """Of the longest that the text begins with; 0 where it begins with none."""
    assert guard.find_leading("[INST] Hi") == 6
    assert guard.find_leading(" [INST]") == 0
    assert Guard([]).find_leading("<|im_end|>") == 0


def test_thousands_of_tokens_are_one_tree() -> None:
    """The longest that fits is found, and a text full of their first letter takes no time."""
    tokens = [f"<unused{i}>" for i in range(6000)] + ["<un", "<|im_end|>", "a+b"]
    pattern = compile_tokens(tokens)
    text = "<unused59><unused6000><b><|im_end|>a+b" + "<" * 10_000
    assert pattern.findall(text) == ["<unused59>", "<un", "<|im_end|>", "a+b"]
    assert compile_tokens([]).search("a") is None


def test_wide_and_capital_letters_are_fenced_where_the_tokenizer_reads_them_as_others() -> None:
    """What it normalises may be a control token only then."""
    guard = Guard(["<|im_end|>", "s>"], lambda text: unicodedata.normalize("NFKC", text).lower())
    assert guard.fence("\uff1ca", BREAKER) == f"{BREAKER}\uff1c{BREAKER}a{BREAKER}"
    assert guard.fence("S>", BREAKER) == f"{BREAKER}S{BREAKER}>{BREAKER}"
    assert Guard(["<|im_end|>"]).fence("\uff1ca", BREAKER) == f"{BREAKER}\uff1ca{BREAKER}"
