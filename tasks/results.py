"""Everything an audit leaves on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from poisonwatch import runs
from poisonwatch.attribution import Fitted
from poisonwatch.config import AuditConfig
from poisonwatch.evidence import ClusterEvidence
from poisonwatch.examples import Rejection
from poisonwatch.report import render_report
from poisonwatch.saved import save_operators
from poisonwatch.tasks import PLAIN
from poisonwatch.verdicts import Verdicts


@task(**PLAIN)
def record(
    folder: Path,
    config: AuditConfig,
    summary: Mapping[str, Any],
    fitted: Fitted,
    verdicts: Verdicts,
    evidence: Sequence[ClusterEvidence],
    rejected: Sequence[Rejection],
) -> None:
    """Write the run directory's files."""
    runs.write_config(folder, config)
    runs.write_summary(folder, summary)
    runs.write_scores(folder, verdicts)
    runs.write_coefficients(folder, verdicts)
    runs.write_flags(folder, verdicts.flags)
    runs.write_evidence(folder, evidence)
    runs.write_rejected(folder, rejected)
    save_operators(folder, fitted, config, summary["model"]["fingerprint"])
    report = render_report(summary, verdicts, [asdict(rejection) for rejection in rejected], evidence)
    (folder / "report.html").write_text(report, encoding="utf-8")
