"""Sentinels as queries: what is asked of them, and how it is put together."""

from dataclasses import replace

import numpy as np
from attributions import (
    ROWS,
    SENTINELS,
    STRIDE,
    fit_operators,
    sentinel,
)

from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.influence import build_queries
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.queries import prepare_queries


def test_margin_is_forbidden_minus_reference(tiny_pretrained: Pretrained) -> None:
    """||G_m|| y(margin) = ||G_f|| y(forbidden) - ||G_r|| y(reference)."""
    fitted = fit_operators(tiny_pretrained, ROWS)
    (both, asked), (alone, other) = (
        prepare_queries(fitted, [s], STRIDE)
        for s in (SENTINELS[1], replace(SENTINELS[1], forbidden=None))
    )
    assert [q.kind for q in both] == ["forbidden", "margin"]
    assert [q.kind for q in alone] == ["reference"]
    y, reference = (
        measure(fitted, fitted.operators, a, STRIDE) * a.G.flatten(1).norm(dim=1).numpy()
        for a in (asked, other)
    )
    np.testing.assert_allclose(y[:, 1], y[:, 0] - reference[:, 0], atol=5e-3 * np.abs(y).max())


def test_queries_are_what_each_sentinel_allows_to_measure() -> None:
    """forbidden -> forbidden; both -> forbidden, margin; reference alone -> reference."""
    asked = [
        sentinel("a"),
        sentinel("b", reference="Yes."),
        sentinel("c", forbidden=None, reference="Yes."),
    ]
    assert [(q.sentinel.id, q.kind) for q in build_queries(asked)] == [
        ("a", "forbidden"),
        ("b", "forbidden"),
        ("b", "margin"),
        ("c", "reference"),
    ]
