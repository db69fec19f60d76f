"""What an audit leaves behind, file by file. Which folder it goes to, and how it is read again, are
`layout` and `read`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import csv

from poisonwatch import __version__
from poisonwatch.atomic import write_jsonl
from poisonwatch.config import AuditConfig, Replay
from poisonwatch.detection.clusters import ClusterEvidence, build_evidence_record
from poisonwatch.detection.detect import Detection
from poisonwatch.examples import Example, Rejection
from poisonwatch.flags import Flag, make_flag_record, make_row_record
from poisonwatch.run_directory.provenance import read_git_commit
from poisonwatch.sentinels.sentinel import Sentinel
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
    new, sentinels = detection.rows.new, detection.sentinels
    panel_of = [detection.panels.index(sentinel.panel) for sentinel in sentinels]
    table = _build_pairs(new, sentinels) | {
        "coefficient": detection.coefficients.ravel(),
        "score": detection.scores[:, panel_of].ravel(),
        "p_value": detection.p[:, panel_of].ravel(),
        "q_value": detection.q[:, panel_of].ravel(),
    }
    _write_parquet(folder / "scores.parquet", table)


def write_coefficients(folder: Path, detection: Detection) -> None:
    """`coefficients.parquet`: for every new row and sentinel, from recovery alone and after
    suspects were measured alone.
    """
    pairs = _build_pairs(detection.rows.new, detection.sentinels)
    table = {
        "example_id": pairs["example_id"],
        "sentinel_id": pairs["sentinel_id"],
        "recovered": detection.recovered.ravel(),
        "rescored": detection.coefficients.ravel(),
    }
    _write_parquet(folder / "coefficients.parquet", table)


def write_sentinels(folder: Path, detection: Detection) -> None:
    """`sentinels.jsonl`: the sentinels as they were asked, probes among them, one a line."""
    write_jsonl(folder / "sentinels.jsonl", map(asdict, detection.sentinels))


def write_trusted(folder: Path, detection: Detection) -> None:
    """`trusted.parquet`: what new rows were compared with, one line for every trusted row and
    sentinel.
    """
    sentinels = detection.sentinels
    panel_of = [detection.panels.index(sentinel.panel) for sentinel in sentinels]
    pairs = _build_pairs(detection.rows.trusted, sentinels)
    table = {
        "example_id": pairs["example_id"],
        "sentinel_id": pairs["sentinel_id"],
        "panel": pairs["panel"],
        "coefficient": detection.reference_coefficients.ravel(),
        "score": detection.reference_scores[:, panel_of].ravel(),
    }
    _write_parquet(folder / "trusted.parquet", table)


def _build_pairs(examples: Sequence[Example], sentinels: Sequence[Sentinel]) -> dict[str, pa.Array]:
    """What is known of each pair of an example and a sentinel, the sentinels of an example in
    turn: the order of an array (n, S), row by row.
    """
    columns: dict[str, list[Any]] = {
        "example_id": [],
        "source": [],
        "position": [],
        "sentinel_id": [],
        "panel": [],
    }
    for example in examples:
        for sentinel in sentinels:
            columns["example_id"].append(example.id)
            columns["source"].append(example.source)
            columns["position"].append(example.position)
            columns["sentinel_id"].append(sentinel.id)
            columns["panel"].append(sentinel.panel)
    # Without a type, a column of no row would be one of nulls.
    pairs = {}
    for name, values in columns.items():
        kind = pa.int64() if name == "position" else pa.string()
        pairs[name] = pa.array(values, kind)
    return pairs


def _write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    pq.write_table(pa.table(dict(columns)), path, compression="zstd")


def write_rejected(folder: Path, rejected: Sequence[Rejection]) -> None:
    """`rejected.jsonl`: rows that were not audited, with the expectation that failed."""
    write_jsonl(folder / "rejected.jsonl", map(asdict, rejected))


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
