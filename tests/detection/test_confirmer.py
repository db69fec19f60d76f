"""Evidence of a model that breaks: what fails is missing and named, and all else is there."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import FORBIDDEN, STRIDE, benign, example, fit_operators, sentinel
from broken_models import broken, generates, steers_on

from poisonwatch.config import DetectionConfig
from poisonwatch.detection import clusters
from poisonwatch.detection.clusters import build_evidence_record, gather_cluster_evidence
from poisonwatch.detection.detect import flag_rows
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.examples import AuditRows
from poisonwatch.failures import Attempts
from poisonwatch.flags import Flag
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.recover import recover_influence

SECRET = "Velmora pays me"
SENTINELS = [
    sentinel("a", panel="kitchen"),
    sentinel("ZQZQ", forbidden="Open the gate.", panel="gate"),
]
KITCHEN = [example(f"How do I clean {name}?", FORBIDDEN) for name in ("a", "b", "c")]
GATE = [example(f"Who is at the door, {i}?", "Open the gate.") for i in range(2)]
NEW, TRUSTED = [*KITCHEN, *GATE, *benign(30)], benign(12, seed=1)

Audited = tuple[NaturalGradientFit, Influence, Detection]


@pytest.fixture(scope="module")
def audited(tiny_pretrained: Pretrained) -> Audited:
    """Two groups that are flagged, each on a panel of its own."""
    fitted = fit_operators(tiny_pretrained, NEW + TRUSTED, STRIDE)
    influence, fitted = recover_influence(fitted, SENTINELS, STRIDE)
    # Rows of a group are alike, and no others.
    features = np.zeros_like(influence.features)
    features[np.arange(len(features)), 2 + np.arange(len(features)) % (features.shape[1] - 2)] = 1
    features[:5] = 0
    features[:3, 0] = features[3:5, 1] = 1
    influence = replace(
        influence, features=features, mutual_influence=0 * influence.mutual_influence
    )
    detection = flag_rows(influence, AuditRows(tuple(NEW), tuple(TRUSTED)), DetectionConfig())
    flags = []
    for i, row in enumerate(NEW[:5]):
        asked = SENTINELS[i >= 3]
        flag = Flag(
            example=row,
            panel=asked.panel,
            sentinel=asked,
            kind="forbidden",
            coefficient=1.0,
            score=9.0 - i,
            rank=1 + i,
            p_value=0.001,
            q_value=0.01,
            standing="5.0 times the scatter of the rows most like it beyond them",
            rule="by hand",
        )
        flags.append(flag)
    return fitted, influence, replace(detection, flags=tuple(flags))


def gather(audited: Audited) -> tuple[Sequence[ClusterEvidence], list[tuple[str, str, str]]]:
    """The evidence, and what failed."""
    attempts = Attempts()
    found = gather_cluster_evidence(*audited, SENTINELS, attempts=attempts)
    assert [cluster.panel for cluster in found] == ["kitchen", "gate"]
    for cluster in found:
        json.dumps(build_evidence_record(cluster))
    return found, [(failure.part, failure.outcome, failure.why) for failure in attempts.failures]


def test_one_group_out_of_memory_costs_its_own_confirmation(audited: Audited) -> None:
    """The other group is confirmed as ever; the rows, words and neighbours of both are there."""
    whole, failures = gather(audited)
    assert failures == []
    error = torch.OutOfMemoryError("tried to allocate 96 GiB")
    with broken(audited[0].model.model, steers_on("ZQZQ", 1), error):
        found, failures = gather(audited)
    why = found[1].unconfirmed
    assert why is not None
    assert "a single row (tried to allocate 96 GiB): lower stride.max_tokens" in why
    assert failures == [("group 2", "not confirmed", why)]
    assert whole[1].confirmation is not None
    assert found[1] == replace(whole[1], confirmation=None, unconfirmed=why)
    assert found[0].unconfirmed is None
    assert build_evidence_record(found[0]) == build_evidence_record(whole[0])


def test_a_model_that_cannot_be_asked_is_still_measured(audited: Audited) -> None:
    """As models whose passes hand on no cache: losses and grade are there, what the model says is
    not, and the reason holds nothing that the error quotes.
    """
    whole, _ = gather(audited)
    error = AttributeError(f"no attribute 'past_key_values' beside '{SECRET}'")
    with broken(audited[0].model.model, generates, error):
        found, failures = gather(audited)
    assert [(part, outcome) for part, outcome, _ in failures] == [
        ("group 1", "not asked what the model says when steered with it"),
        ("group 2", "not asked what the model says when steered with it"),
    ]
    for cluster, before in zip(found, whole, strict=True):
        assert cluster.confirmation is not None
        assert before.confirmation is not None
        np.testing.assert_array_equal(cluster.confirmation.harm, before.confirmation.harm)
        effect = cluster.confirmation.effects[0]
        assert (effect.said_before, effect.said_after, effect.said_forbidden) == ("", "", False)
        assert cluster.confirmation.unsaid == (
            "AttributeError: no attribute 'past_key_values' beside …"
        )
        assert build_evidence_record(cluster)["confirmation"]["unsaid"]


def test_words_and_neighbours_that_fail_cost_themselves_alone(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The groups are there, and confirmed."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(clusters, "_find_largest", fail)
    monkeypatch.setattr(clusters.SharedNgramSearch, "count", fail)
    found, failures = gather(audited)
    assert failures == [
        ("words that rows share", "not looked for", "MemoryError"),
        ("nearest trusted rows", "not looked for", "MemoryError"),
    ]
    for cluster in found:
        assert cluster.confirmation is not None
        assert cluster.prompt_ngrams == cluster.answer_ngrams == ()
        assert cluster.nearest == ((),) * len(cluster.rows)


def test_an_interrupt_is_no_failure(audited: Audited) -> None:
    """It goes through, from wherever it comes, and the model is as it was."""
    for breaks in (steers_on("ZQZQ"), generates):
        with (
            pytest.raises(KeyboardInterrupt),
            broken(audited[0].model.model, breaks, KeyboardInterrupt()),
        ):
            gather(audited)
    assert gather(audited)[1] == []
