"""What an audit leaves behind, file by file. Which folder it goes to, and how it is read again, are
`run_dirs` and `readback`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
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
from poisonwatch.flags import Flag, make_flag_record
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


def write_scores(folder: Path, verdicts: Detection) -> None:
    """`scores.parquet`: one line for every new row and sentinel; score, p and q are those of the
    sentinel's panel.
    """
    n, S = verdicts.coefficients.shape
    panel_of = [verdicts.panels.index(sentinel.panel) for sentinel in verdicts.sentinels]

    def by_row(values: Iterable[Any]) -> list[Any]:
        return [value for value in values for _ in range(S)]

    table = pa.table(
        {
            "example_id": by_row(e.id for e in verdicts.examples),
            "source": by_row(e.source for e in verdicts.examples),
            "position": pa.array(by_row(e.position for e in verdicts.examples), pa.int64()),
            "sentinel_id": [s.id for s in verdicts.sentinels] * n,
            "panel": [s.panel for s in verdicts.sentinels] * n,
            "coefficient": verdicts.coefficients.ravel(),
            "score": verdicts.scores[:, panel_of].ravel(),
            "p_value": verdicts.p[:, panel_of].ravel(),
            "q_value": verdicts.q[:, panel_of].ravel(),
        }
    )
    pq.write_table(table, folder / "scores.parquet", compression="zstd")


def write_coefficients(folder: Path, verdicts: Detection) -> None:
    """`coefficients.parquet`: for every new row and sentinel, from recovery alone and after
    suspects were measured alone.
    """
    n, S = verdicts.coefficients.shape
    table = pa.table(
        {
            "example_id": [example.id for example in verdicts.examples for _ in range(S)],
            "sentinel_id": [sentinel.id for sentinel in verdicts.sentinels] * n,
            "recovered": verdicts.recovered.ravel(),
            "rescored": verdicts.coefficients.ravel(),
        }
    )
    pq.write_table(table, folder / "coefficients.parquet", compression="zstd")


def write_sentinels(folder: Path, verdicts: Detection) -> None:
    """`sentinels.jsonl`: the sentinels as they were asked, probes among them, one a line."""
    write_jsonl(folder / "sentinels.jsonl", map(asdict, verdicts.sentinels))


def write_trusted(folder: Path, detection: Detection) -> None:
    """`trusted.parquet`: what new rows were compared with, one line for every trusted row and
    sentinel.
    """
    n, S = detection.reference_coefficients.shape
    panel_of = [detection.panels.index(sentinel.panel) for sentinel in detection.sentinels]
    table = pa.table(
        {
            "example_id": pa.array(
                [example.id for example in detection.rows.trusted for _ in range(S)], pa.string()
            ),
            "sentinel_id": pa.array([s.id for s in detection.sentinels] * n, pa.string()),
            "panel": pa.array([s.panel for s in detection.sentinels] * n, pa.string()),
            "coefficient": detection.reference_coefficients.ravel(),
            "score": detection.reference_scores[:, panel_of].ravel(),
        }
    )
    pq.write_table(table, folder / "trusted.parquet", compression="zstd")


def write_rejected(folder: Path, rejected: Sequence[Rejection]) -> None:
    """`rejected.jsonl`: rows that were not audited, with the expectation that failed."""
    write_jsonl(folder / "rejected.jsonl", map(asdict, rejected))


def write_nearest(
    folder: Path, evidence: Sequence[ClusterEvidence], trusted: Sequence[Example]
) -> None:
    """`nearest.jsonl`: the trusted rows that the evidence names, each once, with their text."""
    places = sorted(
        {near.place for group in evidence for of_row in group.nearest for near in of_row}
    )
    write_jsonl(
        folder / "nearest.jsonl", map(_build_trusted_record, (trusted[place] for place in places))
    )


def _build_trusted_record(example: Example) -> dict[str, Any]:
    messages = [asdict(message) for message in example.messages]
    return {
        "example_id": example.id,
        "source": example.source,
        "position": example.position,
        "messages": messages,
    }


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
    table = pa.table(
        {
            name: getattr(curve, name)
            for name in ("step", "total", "fidelity", "stability", "linearity")
        }
    )
    csv.write_csv(table, folder / "learning_curve.csv")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
