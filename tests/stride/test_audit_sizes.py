"""Sizes that costs are estimated from, by the rows and sentinels that they are of."""

from attributions import ROWS, SENTINELS
from transformers import PreTrainedTokenizerFast

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.stride.audit_sizes import build_audit_shape, count_tokens
from poisonwatch.stride.cost_shapes import AuditShape
from poisonwatch.stride.settings import resolve_settings

D, N = 64, 500


def test_both_conversations_of_a_preference_count(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Tokens and answers of chosen and rejected; shortest, longest and mean are of rows."""
    encoder = ChatEncoder(tiny_tokenizer)
    question = Message("user", "Which?")
    chosen, rejected = Message("assistant", "Tea, please."), Message("assistant", "Coffee.")
    preference = Example.from_messages([question, chosen], rejected=[question, rejected])
    alone = [encoder.encode_example(row) for row in ROWS[:3]]
    both = encoder.encode_example(preference)
    assert both.against is not None
    tokens = count_tokens([*alone, both])
    lengths = [*map(len, alone), len(both) + len(both.against)]
    assert tokens.rows == 4
    assert tokens.mean == sum(lengths) / 4
    assert (tokens.shortest, tokens.longest) == (min(lengths), max(lengths))
    answers = sum(int(row.answer.sum()) for row in (*alone, both, both.against))
    assert tokens.answer_share == answers / sum(lengths)


def build(tokenizer: PreTrainedTokenizerFast, probes: int = 0, **settings: object) -> AuditShape:
    stride = StrideConfig(r=16, background=12, **settings)  # type: ignore[arg-type]
    encoder = ChatEncoder(tokenizer)
    tokens = count_tokens([encoder.encode_example(row) for row in ROWS])
    resolved = resolve_settings(stride, 3, D, N)
    return build_audit_shape(
        stride, resolved, encoder, SENTINELS, tokens, width=D, n=N, trusted=0, probes=probes
    )


def test_sentinels_and_settings_become_sizes(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Two sentinels with three answers: two pushes, one reference, one margin; each as often again
    as there are probes. Operators count where rows share subsets, and pairs where these are
    trained.
    """
    plain = build(tiny_tokenizer)
    assert (plain.answers, plain.panels, plain.n, plain.r) == (3, 1, N, 16)
    probed = build(tiny_tokenizer, probes=2)
    assert (probed.answers, probed.panels, probed.Q) == (9, 3, 3 * plain.Q)
    assert plain.keeps_gradients
    assert not build(tiny_tokenizer, memory_gb=1e-5).keeps_gradients
    assert (plain.operators, plain.pairs) == (0, 0)
    shared = build(tiny_tokenizer, K=100)
    assert shared.operators > 100 * 4 * 16 * D
    assert build(tiny_tokenizer, K=200).operators > shared.operators
    assert build(tiny_tokenizer, fit="sgd").pairs == 8
