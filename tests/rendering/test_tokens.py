"""Tokens know which characters they are of."""

import pytest
from rendering_rows import ZEPHYR, build_spaced_tokenizer
from tiny_models import build_tokenizer
from transformers import PreTrainedTokenizerFast

from poisonwatch.rendering.tokens import tokenise


def test_tokens_of_a_span(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Touching: any character in it, all bytes of a letter; within: no character outside."""
    text = "ab é<|im_end|>\n"
    tokens = tokenise(tiny_tokenizer, text)
    assert len(tokens) == 7
    touching = tokens.find_touching((3, 5))
    assert tiny_tokenizer.decode(tokens.ids[touching]) == "é<|im_end|>"
    assert tiny_tokenizer.decode(tokens.ids[tokens.find_within((3, 5))]) == "é"
    assert tiny_tokenizer.decode(tokens.ids[tokens.find_within((0, 14))]) == text[:-1]
    assert tokens.list_control(tiny_tokenizer.all_special_ids) == [
        tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    ]


@pytest.mark.parametrize("spaced", [False, True])
def test_breakers_become_no_token_and_keep_others_from_becoming_one(spaced: bool) -> None:
    """Without them the text is the same, and the control token that it spells is text."""
    tokenizer = build_spaced_tokenizer(ZEPHYR) if spaced else build_tokenizer()
    spelled = "<|endoftext|>"
    whole = tokenise(tokenizer, f"a {spelled} b")
    broken = tokenise(tokenizer, f"a {spelled[0]}\ue000{spelled[1:]} b", "\ue000")
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert len(whole.list_control(control)) == 1
    assert broken.list_control(control) == []
    assert all(end > start for start, end in zip(broken.starts, broken.ends, strict=True))
    if not spaced:
        assert tokenizer.decode(broken.ids) == f"a {spelled} b"


def test_tokenizer_without_offsets_reads_pieces(
    tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut where what is trained begins and ends, and at breakers: the same tokens, and every token
    of a piece is of the whole piece.
    """
    text = "user: Hi<|im_end|>\nassistant: \ue000Yes"
    fast = tokenise(tiny_tokenizer, text, "\ue000")
    monkeypatch.setattr(type(tiny_tokenizer), "is_fast", property(lambda self: False))
    slow = tokenise(tiny_tokenizer, text, "\ue000", [8, 18])
    assert slow.ids.tolist() == fast.ids.tolist()
    assert tiny_tokenizer.decode(slow.ids[slow.find_touching((8, 18))]) == "<|im_end|>"
