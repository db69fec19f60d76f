"""What stages come to survives a file, to the bit; what does not belong there is refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from poisonwatch.checkpoints.serialise import pack, unpack
from poisonwatch.detection.evidence import (
    ClusterEvidence,
    Confirmation,
    Effect,
    LossChange,
    Neighbour,
)
from poisonwatch.detection.shared_ngrams import SharedNgram
from poisonwatch.examples import Message
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.sentinels.sentinel import Sentinel, SentinelProblem
from poisonwatch.stride.fitted import LearningCurve, SingleRows
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.operators import Basis, Operators

SENTINEL = Sentinel(
    "a-0", (Message("user", "Where\ud800?"),), "Here.", None, "a", "high", ("tag",), "cf"
)
DRAW = np.random.default_rng(0)
INFLUENCE = Influence(
    queries=(Query(SENTINEL, "forbidden"),),
    w=DRAW.standard_normal((5, 3)),
    first_pass=np.asfortranarray(DRAW.standard_normal((5, 3))),
    suspects=np.arange(2),
    mutual_influence=np.array([[np.nan, np.inf], [-0.0, 1e-310]]),
    features=np.zeros((5, 0), dtype=np.float32),
    neighbours=NeighbourGraph(
        np.arange(10).reshape(5, 2), DRAW.standard_normal((5, 2)).astype(np.float32)
    ),
    certificate=1 / 3,
    measured_alone=2,
)
CONFIRMATION = Confirmation(
    0.01,
    2,
    (
        Effect(
            SENTINEL,
            "forbidden",
            LossChange(1.5, 0.1 + 0.2, (1.0, float("inf"))),
            None,
            "\x1b[31m",
            "red",
        ),
    ),
)
EVIDENCE = ClusterEvidence(
    rows=(0, 3),
    example_ids=("a", "b"),
    panel="a",
    likeness=0.25,
    example=3,
    prompt_ngrams=(SharedNgram("cf", 2, 2, 0, 9, 3.5),),
    answer_ngrams=(),
    nearest=((Neighbour("c", 1, 0.5),), ()),
    confirmation=CONFIRMATION,
)
CURVE = LearningCurve(np.arange(1, 3), *DRAW.standard_normal((4, 2)))
OPERATORS = Operators(
    torch.randn(3, 2, 4, generator=torch.manual_seed(0)), Basis(torch.eye(4)[:, :1]), 0.1, 0.005
)


def round_trip(kind: Any, value: Any) -> Any:
    tree, tensors = pack(value)
    return unpack(kind, json.loads(json.dumps(tree)), tensors)


def same(one: Any, other: Any) -> bool:
    """Equal to the bit: types, values, and how arrays lie in memory."""
    if isinstance(one, np.ndarray):
        strides = one.strides == other.strides or not one.size
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and strides
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, tuple | list):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(
            same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__
        )
    return type(one) is type(other) and (one == other or one != one)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (list[SentinelProblem], [SentinelProblem("a", "says nothing")]),
        (tuple[Influence, SingleRows], (INFLUENCE, SingleRows(np.arange(2), torch.ones(2, 3, 4)))),
        (Influence, replace(INFLUENCE, decoy_quantile=np.ones(3))),
        (Influence, replace(INFLUENCE, first_pass=INFLUENCE.w)),
        (
            tuple[ClusterEvidence, ...],
            (EVIDENCE, replace(EVIDENCE, confirmation=None, unconfirmed="too few")),
        ),
        (tuple[ClusterEvidence, ...], ()),
        (tuple[Operators, LearningCurve], (OPERATORS, CURVE)),
        (float, float(np.float64(0.1))),
    ],
    ids=["problems", "recovered", "lasso", "shared", "evidence", "nothing", "training", "number"],
)
def test_what_a_stage_comes_to_survives_to_the_bit(kind: Any, value: Any) -> None:
    """Text with half surrogates and control characters, infinities, minus zero, empty arrays, and
    the order in memory among it.
    """
    assert same(round_trip(kind, value), value)


def test_numbers_of_numpy_become_plain_ones() -> None:
    """As JSON would write them."""
    assert round_trip(int, np.int64(3)) == 3


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, object(), (SentinelProblem,), b"raw"],
    ids=["mapping", "object", "class", "bytes"],
)
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    """Rather than kept in a way that cannot be read."""
    with pytest.raises(TypeError, match="cannot be kept"):
        pack(value)


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        (SentinelProblem, {"sentinel_id": "a"}),
        (SentinelProblem, {"sentinel_id": "a", "problem": "b", "__class__": "os.system"}),
        (SentinelProblem, {"sentinel_id": "a", "problem": 3}),
        (SentinelProblem, ["a", "b"]),
        (list[SentinelProblem], {"sentinel_id": "a", "problem": "b"}),
        (tuple[int, int], [1]),
        (int, True),
        (float, "0.5"),
        (Basis, {"directions": "7"}),
        (Basis, {"directions": 0}),
        (SingleRows, {"rows": "0", "a": "0"}),
        (dict, {}),
    ],
)
def test_nothing_but_what_is_asked_for_comes_out(kind: Any, tree: Any) -> None:
    """Fields missing or too many, other types, arrays that are not there or of another type, types
    that are never kept.
    """
    with pytest.raises(ValueError, match=r"kept here|not there|belongs|argument"):
        unpack(kind, tree, {"0": torch.zeros(2, 3)})
