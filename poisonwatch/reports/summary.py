"""What an audit comes to: `summary.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from poisonwatch.config import AuditConfig, ModelConfig
from poisonwatch.detection.detection import Detection, locate_flags
from poisonwatch.detection.new_topics import NewTopic
from poisonwatch.detection.result import AttributionResult
from poisonwatch.detection.shared_ngrams import SharedNgram
from poisonwatch.examples import iterate_ids
from poisonwatch.ledger.intake import IngestStats
from poisonwatch.ledger.ledger import Version
from poisonwatch.reports.coverage import describe_coverage
from poisonwatch.reports.new_topics import LONGEST_WORDS, MOST_TOPICS
from poisonwatch.run_directory.provenance import describe_origin, hash_data
from poisonwatch.run_directory.timing import StageCost
from poisonwatch.sources.open import SourceRows
from poisonwatch.sources.unread import UnreadField
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.streamed import StreamedFit
from poisonwatch.stride.unmeasured import Unmeasured
from poisonwatch.text.display import excerpt
from poisonwatch.validation import Validation

CALIBRATION_LEVEL = 0.05
NAME_CHARACTERS = 200
FILES_NAMED = 5  # of those that are read alike
PASSED_OVER_NAMED = 200
UNMEASURED_NAMED = 200


def summarise(
    config: AuditConfig,
    audit_id: str,
    version: Version,
    counts: Mapping[str, int],
    source: Mapping[str, Any],
    attributed: AttributionResult,
    stages: Sequence[StageCost],
) -> dict[str, Any]:
    """`summary.json` without MLflow's ids, which are known last. `counts` are of rows: pulled,
    rejected, reference, ...; `source` is `describe_source`'s.

    Each panel says how its p-values turned out (`calibration`): over the new rows that nothing
    flagged, they should be uniform.
    """
    detection = attributed.detection
    return {
        "audit_id": audit_id,
        **describe_origin(config),
        "counts": {**counts, "new": len(detection.examples), "flagged": len(detection.flags)},
        "source": dict(source),
        "model": describe_model(config.model, version.model, version.reading),
        "sentinels": version.sentinels,
        "data_fingerprint": hash_data(iterate_ids(detection.examples)),
        "settings": _describe_settings(config, attributed.fitted),
        "recovery": _describe_recovery(attributed.influence),
        "false_discovery_rate": detection.false_discovery_rate,
        "panels": _describe_panels(detection),
        "largest_coefficients": _find_largest_coefficients(detection),
        "screens": _count_findings(detection),
        "new_topics": _describe_new_topics(detection, attributed.new_topics),
        "coverage": describe_coverage(
            config.sentinels, detection, attributed.near_copies, attributed.groups
        ),
        "unmeasured": _describe_unmeasured(attributed.unmeasured),
        "sentinel_problems": [asdict(problem) for problem in attributed.problems],
        # What failed beside the verdicts: known last.
        "failures": [],
        "stages": [asdict(cost) for cost in stages],
        # The keys are there from the start: a reader need not ask whether MLflow was at hand.
        "mlflow_run_id": None,
        "mlflow_experiment_id": None,
    }


def count_rows(
    ingested: IngestStats, pulled: int, valid: Validation, reference: Validation
) -> dict[str, int]:
    """The `counts` of summary.json that are known before attribution, in rows."""
    return {
        "pulled": pulled,
        "rejected": len(valid.rejected),
        "reference": len(reference.examples),
        "read": ingested.read,
        "copies": ingested.copies,
        "variants": ingested.variants,
    }


def summarise_nothing(
    config: AuditConfig,
    audit_id: str,
    version: Version,
    ingested: IngestStats,
    source: Mapping[str, Any],
    stages: Sequence[StageCost],
) -> dict[str, Any]:
    """The summary of an audit that no row waited for, and that leaves no run directory: the same
    keys, and `nothing_new`, which says so.
    """
    counts = {
        "pulled": 0,
        "rejected": 0,
        "reference": 0,
        "read": ingested.read,
        "copies": ingested.copies,
        "variants": ingested.variants,
    }
    nothing = AttributionResult(Detection.empty(config.detection))
    summary = summarise(
        config,
        audit_id,
        version,
        counts=counts,
        source=source,
        attributed=nothing,
        stages=stages,
    )
    return {**summary, "nothing_new": True}


def describe_model(model: ModelConfig, fingerprint: str, reading: str | None) -> dict[str, str]:
    """A model by its name, its adapter's, if any, and its fingerprints (see `fingerprints`)."""
    described = {"name": model.name, "fingerprint": fingerprint}
    if reading:
        described["reading"] = reading
    if model.adapter is not None:
        described["adapter"] = model.adapter
    return described


def describe_source(
    ingested: IngestStats, rows: SourceRows, unread: Sequence[UnreadField]
) -> dict[str, Any]:
    """The section `source` of summary.json: how rows are read and what is left over of those of the
    audit, and what the pull before it met.

    Names and examples are excerpts: they are the rows' own, and not to be trusted.
    """
    words = {name: format.explanation for name, format in rows.formats.items()}
    files: dict[str, list[str]] = {}
    for name, format in (words | ingested.formats).items():
        files.setdefault(format, []).append(name)
    formats = []
    for format, names in files.items():
        shown = [excerpt(name, NAME_CHARACTERS) for name in names[:FILES_NAMED]]
        formats.append({"format": format, "files": len(names), "such_as": shown})
    fields = []
    for each in unread:
        fields.append(asdict(each) | {"name": excerpt(each.name, NAME_CHARACTERS)})
    passed_over = []
    for left in ingested.passed_over[:PASSED_OVER_NAMED]:
        passed_over.append(
            {"name": excerpt(left.name, NAME_CHARACTERS), "reason": excerpt(left.reason)}
        )
    return {
        "formats": formats,
        "unread": fields,
        "passed_over": passed_over,
        "passed_over_count": len(ingested.passed_over),
        "copies": ingested.copies,
        "variants": ingested.variants,
    }


def _describe_panels(detection: Detection) -> list[dict[str, Any]]:
    unflagged = np.ones(len(detection.examples), dtype=bool)
    unflagged[locate_flags(detection.flags, detection.rows.new)] = False
    # A row that a screen alone flagged stands at a panel, too, but did not stand out on it.
    flagged_on = Counter(flag.panel for flag in detection.flags if flag.by_attribution)
    panels = []
    for j, name in enumerate(detection.panels):
        panel = {
            "name": name,
            "null": detection.nulls[j].rule,
            "largest_score": float(detection.scores[:, j].max()),
            "flagged": flagged_on[name],
        }
        panels.append(panel | compute_calibration(detection.p[unflagged, j]))
    return panels


def _count_findings(detection: Detection) -> dict[str, int]:
    """By screen, in the order of their names, how many findings it has about flagged rows."""
    counted: Counter[str] = Counter()
    for flag in detection.flags:
        counted.update(finding.screen for finding in flag.findings)
    return dict(sorted(counted.items()))


def _describe_new_topics(detection: Detection, topics: Sequence[NewTopic]) -> dict[str, Any]:
    """The section `new_topics` of summary.json: how many `rows` cannot be judged, and the first
    MOST_TOPICS topics that they are on.

    Words are excerpts: they are the rows' own, and not to be trusted.
    """
    groups = []
    for topic in topics[:MOST_TOPICS]:
        group = {
            "rows": len(topic.rows),
            "panel": topic.panel,
            "example_id": detection.examples[topic.example].id,
            "prompt_words": _list_words(topic.prompt_ngrams),
            "answer_words": _list_words(topic.answer_ngrams),
        }
        groups.append(group)
    return {"rows": int(detection.unjudged.sum()), "groups": groups}


def _describe_unmeasured(unmeasured: Unmeasured) -> list[dict[str, Any]]:
    """The section `unmeasured` of summary.json: the first rows that were left out, by name."""
    rows = []
    for role, rejected in (("new", unmeasured.new), ("trusted", unmeasured.trusted)):
        for row in rejected[:UNMEASURED_NAMED]:
            named = {"example_id": row.example_id, "role": role}
            place = {"source": excerpt(row.source, NAME_CHARACTERS), "position": row.position}
            rows.append(named | place | {"reason": row.reason})
    return rows


def _list_words(grams: Sequence[SharedNgram]) -> list[str]:
    return [excerpt(gram.text, LONGEST_WORDS) for gram in grams]


def compute_calibration(p: NDArray[np.float64]) -> dict[str, Any]:
    """How the p-values (m,) of a panel's unflagged new rows turned out; the shares are None where
    there are no such rows.

    `unflagged` is m; `p_below_0.05` the share of rows with p <= .05, which is .05 where p-values
    are right (less where flagged rows took the smallest with them); `p_distance_from_uniform` the
    Kolmogorov-Smirnov distance, 0 to 1.
    """
    if not len(p):
        return {"unflagged": 0, "p_below_0.05": None, "p_distance_from_uniform": None}
    # The distance alone is used: its exact p-value would cost time and be thrown away.
    distance = kstest(p, "uniform", method="asymp").statistic
    return {
        "unflagged": len(p),
        "p_below_0.05": float(np.mean(p <= CALIBRATION_LEVEL)),
        "p_distance_from_uniform": float(distance),
    }


def _find_largest_coefficients(detection: Detection) -> dict[str, float]:
    """By sentinel, the largest coefficient of a new row, in spreads: how far the batch's strongest
    row pushes it.
    """
    if not detection.sentinels:
        return {}
    ids = [sentinel.id for sentinel in detection.sentinels]
    return dict(zip(ids, detection.coefficients.max(axis=0).tolist(), strict=True))


def _describe_settings(
    config: AuditConfig, fitted: FittedOperators | StreamedFit | None
) -> dict[str, Any]:
    if fitted is None:
        return {}
    derived = {
        "n": len(fitted.ids),
        "eta": fitted.eta,
        "shift": fitted.shift,
        "damping": config.stride.damping,
    }
    return asdict(fitted.settings) | derived


def _describe_recovery(influence: Influence | None) -> dict[str, Any]:
    if influence is None:
        return {}
    decoys = None
    if influence.decoy_quantile is not None:
        decoys = influence.decoy_quantile.tolist()
    return {
        "certificate": influence.certificate,
        "measured_alone": influence.measured_alone,
        # Decoys were once called phantoms: summaries of then and now are read alike.
        "phantom_coefficients": decoys,
    }
