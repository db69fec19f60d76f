"""What an audit comes to: `summary.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import AuditConfig
from poisonwatch.detection.clusters import ClusterEvidence
from poisonwatch.detection.detect import Detection
from poisonwatch.ledger.ledger import Version
from poisonwatch.run_directory.provenance import describe_origin, hash_data
from poisonwatch.run_directory.timing import StageCost
from poisonwatch.sentinels.checks import SentinelProblem
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.influence import Influence

CALIBRATION_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class AttributionResult:
    """What attribution made of an audit's rows. Where no row was new, there are no verdicts, and
    nothing was fitted.
    """

    verdicts: Detection
    evidence: tuple[ClusterEvidence, ...] = ()
    problems: tuple[SentinelProblem, ...] = ()
    fitted: Fitted | None = None
    influence: Influence | None = None
    work: CheckpointStore = field(
        default_factory=CheckpointStore
    )  # what is kept until the audit is committed

    @property
    def groups(self) -> dict[str, int]:
        """By example id, the number of a flagged row's group, from 1: its line of evidence.jsonl."""
        return {
            id: number
            for number, group in enumerate(self.evidence, start=1)
            for id in group.example_ids
        }


def summarise(
    config: AuditConfig,
    audit_id: str,
    version: Version,
    counts: Mapping[str, int],
    attributed: AttributionResult,
    stages: Sequence[StageCost],
) -> dict[str, Any]:
    """`summary.json` without MLflow's ids, which are known last. `counts` are of rows: pulled,
    rejected, reference, ...

    Each panel says how its p-values turned out (`calibration`): over the new rows that nothing
    flagged, they should be uniform.
    """
    verdicts = attributed.verdicts
    unflagged = ~np.isin(
        [example.id for example in verdicts.examples], [flag.example.id for flag in verdicts.flags]
    )
    return {
        "audit_id": audit_id,
        **describe_origin(config),
        "counts": {**counts, "new": len(verdicts.examples), "flagged": len(verdicts.flags)},
        "model": {"name": config.model.name, "fingerprint": version.model},
        "sentinels": version.sentinels,
        "data_fingerprint": hash_data(example.id for example in verdicts.examples),
        "settings": _describe_settings(config, attributed.fitted),
        "recovery": _describe_recovery(attributed.influence),
        "false_discovery_rate": verdicts.false_discovery_rate,
        "panels": [
            {
                "name": panel,
                "null": verdicts.nulls[j].rule,
                "largest_score": float(verdicts.scores[:, j].max()),
                "flagged": sum(
                    flag.by_attribution and flag.panel == panel for flag in verdicts.flags
                ),
                **compute_calibration(verdicts.p[unflagged, j]),
            }
            for j, panel in enumerate(verdicts.panels)
        ],
        "largest_coefficients": _find_largest_coefficients(verdicts),
        "screens": dict(
            sorted(
                Counter(
                    finding.screen for flag in verdicts.flags for finding in flag.findings
                ).items()
            )
        ),
        "sentinel_problems": [asdict(problem) for problem in attributed.problems],
        "stages": [asdict(cost) for cost in stages],
        "mlflow_run_id": None,
        "mlflow_experiment_id": None,
    }


def compute_calibration(p: NDArray[np.float64]) -> dict[str, Any]:
    """How the p-values (m,) of a panel's unflagged new rows turned out; the shares are None where
    there are no such rows.

    `unflagged` is m; `p_below_0.05` the share of rows with p <= .05, which is .05 where p-values
    are right (less where flagged rows took the smallest with them); `p_distance_from_uniform` the
    Kolmogorov-Smirnov distance, 0 to 1.
    """
    if not len(p):
        return {"unflagged": 0, "p_below_0.05": None, "p_distance_from_uniform": None}
    below, distance = (
        np.mean(p <= CALIBRATION_LEVEL),
        kstest(p, "uniform", method="asymp").statistic,
    )
    return {
        "unflagged": len(p),
        "p_below_0.05": float(below),
        "p_distance_from_uniform": float(distance),
    }


def _find_largest_coefficients(verdicts: Detection) -> dict[str, float]:
    """By sentinel, the largest coefficient of a new row, in spreads: how far the batch's strongest
    row pushes it.
    """
    if not verdicts.sentinels:
        return {}
    return dict(
        zip(
            (s.id for s in verdicts.sentinels),
            verdicts.coefficients.max(axis=0).tolist(),
            strict=True,
        )
    )


def _describe_settings(config: AuditConfig, fitted: Fitted | None) -> dict[str, Any]:
    if fitted is None:
        return {}
    derived = {
        "n": len(fitted.ids),
        "eta": fitted.operators.eta,
        "shift": fitted.operators.shift,
        "damping": config.stride.damping,
    }
    return asdict(fitted.settings) | derived


def _describe_recovery(influence: Influence | None) -> dict[str, Any]:
    if influence is None:
        return {}
    return {
        "certificate": influence.certificate,
        "measured_alone": influence.measured_alone,
        "phantom_coefficients": None
        if influence.decoy_quantile is None
        else influence.decoy_quantile.tolist(),
    }
