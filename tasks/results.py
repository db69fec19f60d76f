"""Everything an audit leaves on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import list_previous_audits
from poisonwatch.reports.html import render_report
from poisonwatch.reports.links import make_dashboard_url, make_mlflow_run_url
from poisonwatch.reports.plots import write_plots
from poisonwatch.reports.summary import AttributionResult
from poisonwatch.reports.validation_report import write_validation
from poisonwatch.run_directory import write as runs
from poisonwatch.run_directory.operators import save_operators
from poisonwatch.stride.fitted import TrainedFit
from poisonwatch.tasks.options import PLAIN
from poisonwatch.validation import Validation


@task(**PLAIN)
def record(
    ledger: Ledger,
    folder: Path,
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    valid: Validation,
) -> None:
    """Write the run directory's files.

    The ledger knows the earlier audits of the name.
    """
    detection = found.detection
    # Through the module: a test stops a run between two of its files.
    runs.write_config(folder, config, summary["audit_id"])
    runs.write_summary(folder, summary)
    runs.write_sentinels(folder, detection)
    runs.write_scores(folder, detection)
    runs.write_coefficients(folder, detection)
    runs.write_trusted(folder, detection)
    runs.write_flags(folder, detection.flags)
    runs.write_evidence(folder, found.evidence)
    runs.write_nearest(folder, found.evidence, detection.rows.trusted)
    runs.write_rejected(folder, valid.rejected)
    write_plots(folder, detection)
    # With nothing new, nothing was fitted; and a closed form has no learning curve.
    if isinstance(found.fitted, TrainedFit):
        runs.write_learning_curve(folder, found.fitted.curve)
    if found.fitted is not None:
        model = summary["model"]
        save_operators(folder, found.fitted, config, model["fingerprint"], model.get("reading", ""))
    pages = {
        "dashboard": make_dashboard_url(config, summary["audit_id"]),
        "MLflow": make_mlflow_run_url(
            config, summary["mlflow_experiment_id"], summary["mlflow_run_id"]
        ),
    }
    report = render_report(
        summary,
        detection,
        rejected=valid.rejected,
        evidence=found.evidence,
        past=list_previous_audits(ledger, config.name),
        pages=pages,
        topics=found.new_topics,
    )
    (folder / "report.html").write_text(report, encoding="utf-8")
    write_validation(folder, valid, summary["name"])
