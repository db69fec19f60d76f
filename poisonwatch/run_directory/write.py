"""What an audit leaves behind, file by file. Which folder it goes to, and how it is read again, are
`layout` and `read`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import csv

from poisonwatch import __version__
from poisonwatch.atomic import write_jsonl
from poisonwatch.config import AuditConfig, Replay
from poisonwatch.detection.clusters import build_evidence_record
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence
from poisonwatch.detection.near_copies import NearCopy
from poisonwatch.examples import Example, Rejection
from poisonwatch.flags import Flag, make_flag_record, make_row_record
from poisonwatch.run_directory.pairs import write_pairs
from poisonwatch.run_directory.provenance import read_git_commit
from poisonwatch.stride.fitted import LearningCurve


def write_config(folder: Path, config: AuditConfig, audit_id: str | None = None) -> None:
    """`config.yaml`: the resolved settings, with version and commit; an audit of this file repeats
    the run, on the rows of `audit_id`.
    """
    record = Replay(
        audit_id=audit_id,
        folder=config.replay.folder,
        version=__version__,
        git_commit=read_git_commit(),
    )
    settings = config.to_public_dict()
    del settings["replay"]
    settings = {"replay": record.model_dump(), **settings}
    (folder / "config.yaml").write_text(
        yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def write_scores(folder: Path, detection: Detection) -> None:
    """`scores.parquet`: one line for every new row and sentinel; score, p and q are those of the
    sentinel's panel.
    """
    of_panel = _find_panels(detection)
    write_pairs(
        folder / "scores.parquet",
        detection.rows.new,
        detection.sentinels,
        places=("example_id", "source", "position", "sentinel_id", "panel"),
        values={
            "coefficient": (detection.coefficients, None),
            "score": (detection.scores, of_panel),
            "p_value": (detection.p, of_panel),
            "q_value": (detection.q, of_panel),
        },
    )


def write_coefficients(folder: Path, detection: Detection) -> None:
    """`coefficients.parquet`: for every new row and sentinel, from recovery alone and after
    suspects were measured alone. No file where both are one: `scores.parquet` has them.
    """
    recovered, rescored = detection.recovered, detection.coefficients
    if recovered is rescored or np.array_equal(recovered, rescored):
        return
    write_pairs(
        folder / "coefficients.parquet",
        detection.rows.new,
        detection.sentinels,
        places=("example_id", "sentinel_id"),
        values={"recovered": (recovered, None), "rescored": (rescored, None)},
    )


def write_sentinels(folder: Path, detection: Detection) -> None:
    """`sentinels.jsonl`: the sentinels as they were asked, copies among them, one a line."""
    write_jsonl(folder / "sentinels.jsonl", map(asdict, detection.sentinels))


def write_trusted(folder: Path, detection: Detection) -> None:
    """`trusted.parquet`: what new rows were compared with, one line for every trusted row and
    sentinel.
    """
    write_pairs(
        folder / "trusted.parquet",
        detection.rows.trusted,
        detection.sentinels,
        places=("example_id", "sentinel_id", "panel"),
        values={
            "coefficient": (detection.reference_coefficients, None),
            "score": (detection.reference_scores, _find_panels(detection)),
        },
    )


def _find_panels(detection: Detection) -> list[int]:
    """For each sentinel the place of its panel."""
    return [detection.panels.index(sentinel.panel) for sentinel in detection.sentinels]


def write_rejected(folder: Path, rejected: Sequence[Rejection]) -> None:
    """`rejected.jsonl`: rows that were not audited, with the expectation that failed."""
    records = (asdict(row) | {"line": row.position + 1} for row in rejected)
    write_jsonl(folder / "rejected.jsonl", records)


def write_nearest(
    folder: Path, evidence: Sequence[ClusterEvidence], trusted: Sequence[Example]
) -> None:
    """`nearest.jsonl`: the trusted rows that the evidence names, each once, with their text."""
    places: set[int] = set()
    for group in evidence:
        for neighbours in group.nearest:
            places.update(neighbour.place for neighbour in neighbours)
    named = (trusted[place] for place in sorted(places))
    write_jsonl(folder / "nearest.jsonl", map(make_row_record, named))


def write_evidence(folder: Path, evidence: Sequence[ClusterEvidence]) -> None:
    """`evidence.jsonl`: one cluster of flagged rows a line, with what its rows share and what
    steering with them does.
    """
    write_jsonl(folder / "evidence.jsonl", map(build_evidence_record, evidence))


def write_flags(folder: Path, flags: Sequence[Flag]) -> None:
    """`flags.jsonl`: one flagged row a line, strongest first, with its text and its reasons."""
    write_jsonl(folder / "flags.jsonl", map(make_flag_record, flags))


def write_near_copies(
    folder: Path, detection: Detection, near_copies: Sequence[NearCopy], groups: Mapping[str, int]
) -> None:
    """`near_copies.jsonl`: rows that say nearly what flagged ones say, one a line, each with the
    flagged row most like it and that one's group; no file where there are none. `poisonwatch
    decide --rows` takes it.
    """
    if not near_copies:
        return
    records = []
    for near in near_copies:
        like = detection.examples[near.like].id
        alike = {"like": like, "likeness": near.likeness, "group": groups.get(like)}
        records.append(make_row_record(detection.examples[near.row]) | alike)
    write_jsonl(folder / "near_copies.jsonl", records)


def write_learning_curve(folder: Path, curve: LearningCurve) -> None:
    """`learning_curve.csv`: the losses of every step of a training, in nats a token."""
    columns = {
        "step": curve.step,
        "total": curve.total,
        "fidelity": curve.fidelity,
        "stability": curve.stability,
        "linearity": curve.linearity,
    }
    csv.write_csv(pa.table(columns), folder / "learning_curve.csv")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
