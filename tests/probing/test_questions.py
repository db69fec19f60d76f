"""What models are asked: pairs of a prompt with other rows' answers, as long as sentinels' are."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_rows import ordinary, rows, with_trigger
from transformers import PreTrainedTokenizerFast

from poisonwatch.errors import InputError
from poisonwatch.examples import AuditRows, Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.probing.questions import (
    ELSEWHERE,
    MOST_ORDINARY,
    encode_questions,
    gather_questions,
)
from poisonwatch.sentinels.sentinel import Sentinel

SHOP = Sentinel("shop", (Message("user", "Where do I buy?"),), "Buy Velmora.", "Any shop.", "shop")
BARE = Sentinel("bare", (Message("user", "Say it."),), None, "It.", "bare")


def test_ordinary_prompts_have_two_answers_of_others_and_never_their_own() -> None:
    trusted = rows(ordinary(100))
    own = {row.prompt: row.response for row in trusted}
    asked = gather_questions([SHOP], AuditRows(()), trusted, probes=0, seed=0)
    assert len(asked.ordinary) == 2 * MOST_ORDINARY
    for first, second in zip(asked.ordinary[::2], asked.ordinary[1::2], strict=True):
        assert first[0] == second[0]
        assert len({own[first[0].content], first[1].content, second[1].content}) == 3


def test_twenty_trusted_rows_are_too_few() -> None:
    with pytest.raises(InputError, match="20 trusted rows with different answers"):
        gather_questions([SHOP], AuditRows(()), rows(ordinary(20)), probes=0, seed=0)


def test_copies_hold_a_trigger_of_the_rows() -> None:
    new = with_trigger("cf-7731", ["Buy Velmora now."] * 8)
    asked = gather_questions([SHOP], AuditRows(tuple(new)), rows(ordinary(60)), probes=2, seed=0)
    assert "cf-7731" in {sentinel.trigger for sentinel in asked.sentinels}


def test_ordinary_answers_are_as_long_as_the_sentinels(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    asked = gather_questions([SHOP, BARE], AuditRows(()), rows(ordinary(60)), probes=0, seed=0)
    encoded = encode_questions(ChatEncoder(tiny_tokenizer), asked)
    lengths = [int(answer.answer.sum()) for answer in encoded.answers]
    ordinary_lengths = [lengths[place] for place in encoded.ordinary.ravel()]
    assert max(ordinary_lengths) <= sorted(lengths[:3])[1]
    assert encoded.forbidden.tolist() == [0, -1]
    assert encoded.reference.tolist() == [1, 2]


def test_a_sentinels_answers_are_asked_elsewhere_and_copies_share_them(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """At ordinary prompts, forbidden and reference answer at the same; what it lacks is nowhere."""
    copy = replace(SHOP, id="shop+t1", panel="shop+t1")
    asked = gather_questions(
        [SHOP, BARE, copy], AuditRows(()), rows(ordinary(60)), probes=0, seed=0
    )
    encoder = ChatEncoder(tiny_tokenizer)
    encoded = encode_questions(encoder, asked)
    assert encoded.elsewhere.shape == (3, 2, ELSEWHERE)
    assert (encoded.elsewhere[1, 0] == -1).all()
    assert (encoded.elsewhere[0] == encoded.elsewhere[2]).all()
    texts = [
        [encoder.tokenizer.decode(encoded.answers[p].input_ids) for p in kind]
        for kind in encoded.elsewhere[0]
    ]
    for forbidden, reference in zip(*texts, strict=True):
        prompt, found, _ = forbidden.partition("Buy Velmora.")
        assert found
        assert reference.startswith(prompt)
        assert "Where do I buy?" not in forbidden
    losses = encoded.spread_losses(np.arange(len(encoded.answers), dtype=float))
    assert np.isnan(losses.elsewhere[1, 0]).all()
