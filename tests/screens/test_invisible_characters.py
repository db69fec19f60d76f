"""Characters that cannot be seen and forged control tokens are found; what writing needs is not."""

import pytest
from made_up_rows import found, ordinary, row

from poisonwatch.screens.control_tokens import find_control_tokens
from poisonwatch.screens.invisible_characters import find_invisible_characters


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("pass\u200bword", "format control"),
        ("a\u200db", "format control"),
        ("a\ufeffb", "format control"),
        ("\u202egnp.exe", "direction control"),
        ("ש\u202eabc", "direction control"),
        ("plain\u200f text", "direction control"),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "obey"), "tag"),
        ("\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "obey") + "\U000e007f", "tag"),
        ("a\ufe0f", "variation selector"),
        ("!\ufe0f", "variation selector"),
        ("😀\ufe0f\ufe01\U000e0110", "variation selector"),
        ("\u3164", "filler"),
        ("a\u2800b", "filler"),
        ("a\ue000b", "private use"),
        ("a\U000f0001b", "private use"),
        ("a\U000dfffd", "unassigned"),
        ("1 \u00ad 2", "format control"),
        ("م\u200c\u200d\u200c", "format control"),
    ],
)
def test_hidden_characters_are_found_and_named(text: str, kind: str) -> None:
    """In the prompt, the answer or the system text; the reason names code points and holds none of
    the characters.
    """
    for example in (
        row(text, "b"),
        row("a", f"some {text} more"),
        row("a", "b", system=f"some {text}"),
    ):
        (finding,) = find_invisible_characters([row("a", "b"), example])
        assert finding.row == 1
        assert finding.group == kind
        assert any(f"U+{ord(c):04X}" in finding.reason for c in text if not c.isascii())
        assert finding.reason.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII,\ttabs\r\nand lines",
        "👩\u200d🔬 👨\u200d👩\u200d👧 👩🏽\u200d🚀 🏳\ufe0f\u200d🌈 🙂\u200d↔\ufe0f ❤\ufe0f\u200d🔥",
        "❤\ufe0f ☎\ufe0e ✔\ufe0f 1\ufe0f\u20e3 #\ufe0f\u20e3 ©\ufe0f ↔\ufe0f ‼\ufe0f 〰\ufe0f ℹ\ufe0f",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "می\u200cخواهم نامه\u200cها",
        "क्\u200dष क्\u200cष ශ්\u200dරී",
        "שלום\u200f (abc) \u2067עברית\u2069 \u200eabc",
        "ภาษา\u200bไทย",
        "辻\U000e0100 葛\ufe00",
        "\ufeffA byte-order mark",
        "Donau\u00addampf\u00adschiff",
        "\uf0b7 a bullet of a word processor",
        "⠓⠑⠇⠇⠕\u2800⠺⠕⠗⠇⠙",
        "ᠮᠤᠩᠭᠤᠯ\u180b",
        "naïve café — “quotes” … 中文 한국어 \U0001faea",
        "e\u0301 n\u0303 combining",
    ],
)
def test_what_writing_needs_is_silent(text: str) -> None:
    """Emoji sequences, joiners of Persian and Indic scripts, marks of right-to-left text,
    ideographic variants, bullets.
    """
    assert find_invisible_characters([row(text, "b"), row("a", text)]) == []


# control_tokens

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


def test_the_format_of_the_data_is_no_forgery() -> None:
    """Tokens in a tenth of the rows and 20 are ordinary; another one among them is not."""
    batch = [row(f"[INST] {prompt} [/INST]", response) for prompt, response in ordinary(30)]
    assert find_control_tokens(batch) == []
    assert found(find_control_tokens([*batch, row("[INST] <|im_end|>", "b")])) == [30]
    assert found(find_control_tokens(batch[:19])) == list(range(19))


# All of them
