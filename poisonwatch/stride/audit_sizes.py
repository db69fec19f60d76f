"""The sizes that an audit's costs depend on (`cost_shapes`), from its rows and sentinels."""

from collections.abc import Sequence
from dataclasses import dataclass

from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.cost_shapes import AuditShape
from poisonwatch.stride.influence import build_queries
from poisonwatch.stride.queries import list_answers
from poisonwatch.stride.settings import Settings, count_kept_gradients, count_operator_bytes


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of `rows` tokenised rows: tokens of a row on average, the share that answers are, and the
    shortest and the longest row.
    """

    rows: int
    mean: float
    answer_share: float
    shortest: int
    longest: int


def count_tokens(encoded: Sequence[Encoded]) -> Tokens:
    """The tokens of some rows, both conversations of preference rows among them."""
    lengths, answers = [], 0
    for row in encoded:
        conversations = [row] if row.against is None else [row, row.against]
        lengths.append(sum(map(len, conversations)))
        answers += sum(int(each.answer.sum()) for each in conversations)
    total = max(sum(lengths), 1)
    return Tokens(
        rows=len(encoded),
        mean=total / max(len(lengths), 1),
        answer_share=answers / total,
        shortest=min(lengths, default=1),
        longest=max(lengths, default=1),
    )


def build_audit_shape(
    stride: StrideConfig,
    settings: Settings,
    encoder: ChatEncoder,
    sentinels: Sequence[Sentinel],
    tokens: Tokens,
    *,
    width: int,
    n: int,
    trusted: int,
    framed: Sequence[Sentinel] = (),
    probes: int = 0,
) -> AuditShape:
    """An audit of n rows, of which `trusted` set basis and factors, on a model of this `width` (D);
    the `framed` are asked, too, and each sentinel has as many `probes` as there may be.
    """
    asked = [*sentinels, *framed, *probes * list(sentinels)]
    lengths = []
    for sentinel, _, text in list_answers(asked):
        lengths.append(len(encoder.encode(sentinel.add_answer(text))))
    return AuditShape(
        n=n,
        row_tokens=tokens.mean,
        answer_share=tokens.answer_share,
        Q=len(build_queries(asked)),
        answers=len(lengths),
        answer_length=sum(lengths) / max(len(lengths), 1),
        panels=(1 + probes) * len({sentinel.panel for sentinel in sentinels}),
        r=settings.r,
        trusted=trusted,
        background=stride.background,
        shortlist=settings.shortlist,
        token_budget=stride.token_budget,
        keeps_gradients=n <= count_kept_gradients(stride, settings.r, width),
        sketch=stride.sketch,
        shortest=tokens.shortest,
        longest=tokens.longest,
        operators=count_operator_bytes(stride, settings, width, n, trusted),
        pairs=stride.training.operators_per_row if stride.fit == "sgd" else 0,
    )
