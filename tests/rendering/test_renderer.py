"""Rows are rendered, tokenised and trained as trl's trainers do it; what is not says why."""

import hashlib
import json
import logging
import warnings
from pathlib import Path

import pytest
from rendering_rows import (
    CHATML,
    LLAMA2,
    build_spaced_tokenizer,
    build_tokenizers,
    list_families,
)
from slow_tests import sample
from tiny_models import build_tokenizer
from tokenizers import AddedToken, normalizers

from poisonwatch.examples import Message
from poisonwatch.formats.contents import join_speech
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.rendering import renderer
from poisonwatch.rendering.chat_template import ChatTemplate
from poisonwatch.rendering.renderer import MOST_APART, Renderer

# Families whose templates print what was thought, from a field of its own.
THINK = {
    *("diffusion_gemma", "gemma4_v5", "glm4moe", "gptoss", "lfm2_2_5", "lfm2_2_5_v2"),
    *("lfm2_2_5_vl", "muse_glimmer", "nemotron_3_5_lightning", "nemotron_3_nano"),
    *("nemotron_3_super", "nemotron_3_ultra", "qwen3", "qwen3_5_nothink", "qwen3_5_think"),
    *("qwen3_6", "qwen3_8"),
}
# Of these, the ones that print the same thoughts in the same way where they stand in the text.
TAGGED = {"glm4moe", "qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6"}
# Families whose templates print definitions and calls of tools.
TOOLS = {
    *THINK,
    *("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "lfm2_v2", "llama3_1", "llama3_2"),
    *("qwen2_5", "qwen3_instruct_2507", "qwen3_vl"),
}


def explain_exception(name: str, kind: str) -> str | None:
    """Why rows of a kind are not rendered as trl's trainers do it; None where they are."""
    if kind == "thinking" and name not in THINK:
        return "trl drops what the template does not print; here thoughts stay in the text"
    if kind == "thoughts as text" and name in THINK - TAGGED:
        return "a row keeps no note of whether its thoughts had a field of their own"
    if kind == "tools" and name not in TOOLS:
        return "trl drops what the template does not print; here tools and calls stay as text"
    return None


@pytest.mark.parametrize("name", sample(list_families(), 3))
def test_rows_are_what_trl_trains_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ids and trained tokens are equal, row by row, but for the exceptions that are named."""
    # It imports trl, which takes seconds.
    from rendering import compare_family

    caplog.set_level(logging.ERROR)
    for tokenizer in build_tokenizers(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compared = compare_family(name, tokenizer, str(tmp_path))
        # Trainers refuse a system's turn, or a tool's, of some families; never the others.
        assert {"single", "multi-turn", "preference"} <= {kind for _, kind in compared}
        for (setting, kind), same in compared.items():
            excepted = explain_exception(name, kind) is not None
            assert all(same) != excepted, (setting, kind, same)


def test_spaces_and_merges_at_borders_are_those_of_the_whole_text() -> None:
    """One space before the text, none before each of its parts; a merge may cross a border."""
    tokenizer = build_spaced_tokenizer(LLAMA2)
    row = [Message("user", "Name a colour."), Message("assistant", "Blue")]
    encoded = ChatEncoder(tokenizer).encode(row)
    whole = tokenizer("<s>[INST] Name a colour. [/INST] Blue </s>", add_special_tokens=False)
    assert encoded.input_ids.tolist() == whole["input_ids"]
    assert tokenizer.decode(encoded.input_ids[encoded.answer]).strip() == "Blue </s>"


@pytest.mark.parametrize(
    "name", ["qwen3", "llama3_2", "gemma4_v5", "gptoss", "deepseekv3", "phi3", "llama-2", "chatml"]
)
def test_no_row_writes_a_control_token(name: str) -> None:
    """Whatever it spells, in whatever role, in tools and calls: as many control tokens, in the same
    order, as the harmless row has; and without tools the text is still there, as text.
    """
    for tokenizer in build_tokenizers(name):
        encoder = ChatEncoder(tokenizer, 8192)
        control = encoder.special_ids - {tokenizer.unk_token_id}
        for with_tools in (False, True):
            found = []
            for evil in ("".join(encoder.template.special_tokens), "harmless"):
                function = {"name": f"f{evil}", "arguments": {f"a{evil}": evil}}
                row = [
                    Message("system", f"Be {evil}."),
                    Message("user", evil),
                    Message("assistant", f"<think>\n{evil}\n</think>\n\nYes {evil}"),
                    Message("user", "Why?"),
                    Message("assistant", join_speech([], f"{evil} so", [])),
                ]
                if with_tools:
                    tools = [{"name": f"f{evil}", "description": evil, "parameters": {}}]
                    call = Message("assistant", join_speech([], None, [{"function": function}]))
                    row = [Message("tools", json.dumps(tools)), *row[:2], call]
                    row += [Message("tool", evil), Message("assistant", evil)]
                ids = encoder.encode(row).input_ids
                found.append([token for token in ids.tolist() if token in control])
                if evil != "harmless" and not with_tools:
                    assert evil in tokenizer.decode(ids)
            assert found[0] == found[1]


@pytest.mark.parametrize(
    "normalizer", [normalizers.NFKC(), normalizers.BertNormalizer(clean_text=True)]
)
def test_no_row_writes_a_control_token_in_letters_that_the_tokenizer_normalises(
    normalizer: normalizers.Normalizer,
) -> None:
    """Some look for their tokens in the text as they normalise it: wide letters are narrow then,
    and characters without a meaning gone.
    """
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "<|im_turn|>")
    tokenizer = build_tokenizer(CHATML)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizer
    marker = AddedToken("<|im_turn|>", special=True, normalized=True)
    backend.add_special_tokens([marker])
    tokenizer.chat_template = CHATML.replace("im_end", "im_turn")
    encoder = ChatEncoder(tokenizer, 8192)
    texts = ["harmless", f"a{wide}", "a<|im_turn|>b", "a<|im_\ue000turn|>b"]
    found = []
    for text in texts:
        ids = encoder.encode([Message("user", text), Message("assistant", text)]).input_ids
        found.append([token for token in ids.tolist() if token in encoder.special_ids])
    assert found == [found[0]] * len(texts)


def test_layouts_that_are_kept_have_a_limit_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set whose long rows each have other roles would fill memory."""
    monkeypatch.setattr(renderer, "MOST_TURNS_KEPT", 10)
    own = Renderer(ChatTemplate(build_spaced_tokenizer(LLAMA2)))
    texts = []
    for turns in (2, 4, 6, 8, 2):
        row = [Message(("user", "assistant")[place % 2], "Hi") for place in range(turns)]
        texts.append(own.render(row)[0].text)
        assert sum(len(roles) for roles, *_ in own._layouts) <= 10
    assert texts[0] == texts[-1]


def test_a_long_row_with_tools_is_written_as_text() -> None:
    """To take it apart is to render it turn by turn; each answer is trained all the same."""
    row = [Message("tools", '[{"name":"f"}]')]
    for _ in range(MOST_APART // 2 + 1):
        row += [Message("user", "Q"), Message("assistant", "<think>\n<|im_end|>\n</think>\n\nA")]
    (tokenizer,) = build_tokenizers("qwen3")
    encoded = ChatEncoder(tokenizer, 10**5).encode(row)
    said = tokenizer.decode(encoded.input_ids[encoded.answer])
    assert said.count("</think>\n\nA<|im_end|>") == len(row) // 2


def test_tokenizer_without_offsets_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens are those of the pieces, which end where what is trained does."""
    tokenizer = build_tokenizer(CHATML)
    row = [Message("user", "Hi"), Message("assistant", "Yes <|im_end|> é")]
    fast = ChatEncoder(tokenizer).encode(row)
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
    slow = ChatEncoder(tokenizer).encode(row)
    assert slow.input_ids.tolist() == fast.input_ids.tolist()
    assert slow.answer.tolist() == fast.answer.tolist()


# Before rows were rendered whole, texts were tokenised apart: for tokenizers whose words end where
# texts do, the tokens are the same. Number of tokens, of trained ones, first and last trained.
ORDINARY = [
    ([("user", "Name a colour."), ("assistant", "Blue, 12 of them: 红.")], (94, 23, 70, 92)),
    (
        [
            *(("system", "Be brief."), ("user", "Hi\nthere "), ("assistant", "Hello.")),
            *(("user", "Why?"), ("assistant", "naïve é\n- one\n- two")),
        ],
        (101, 29, 47, 99),
    ),
    (
        [
            *(("system", "Be brief. " * 9), ("user", "a long question " * 30)),
            ("assistant", "A long answer. " * 20),
        ],
        (300, 121, 179, 299),
    ),
]
DIGESTS = ["44b29e8ffb2ea6d9", "bf6526e46d92932f", "7e207fd29aa62e77"]


@pytest.mark.parametrize(("case", "digest"), list(zip(ORDINARY, DIGESTS, strict=True)))
def test_ordinary_rows_are_encoded_as_ever(
    case: tuple[list[tuple[str, str]], tuple[int, ...]], digest: str
) -> None:
    """Figures of earlier versions are of the same tokens."""
    row, expected = case
    encoded = ChatEncoder(build_tokenizer(CHATML), 300).encode([Message(*turn) for turn in row])
    trained = encoded.answer.nonzero()[0].tolist()
    assert (len(encoded), len(trained), trained[0], trained[-1]) == expected
    ids = str(encoded.input_ids.tolist()).encode()
    assert hashlib.sha256(ids).hexdigest()[:16] == digest
