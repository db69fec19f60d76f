"""Everything an audit leaves on disk: verdicts, what explains them, and the summary last."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from poisonwatch.atomic import remove
from poisonwatch.config import AuditConfig
from poisonwatch.detection.result import AttributionResult
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.failures import Attempts, tell_failures
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import build_trend, list_previous_audits
from poisonwatch.reports.html import render_report, render_stand_in
from poisonwatch.reports.links import make_dashboard_url, make_mlflow_run_url
from poisonwatch.reports.pictures import Pictures, draw_pictures, write_plots
from poisonwatch.reports.validation_report import write_validation, write_validation_page
from poisonwatch.run_directory import write as runs
from poisonwatch.run_directory.checksums import write_checksums
from poisonwatch.run_directory.directions import DIRECTIONS_FILE, save_directions
from poisonwatch.run_directory.discovery import DISCOVERY_FILE, write_discovery
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import save_operators
from poisonwatch.stride.fitted import TrainedFit
from poisonwatch.stride.streamed import StreamedFit
from poisonwatch.tasks.options import PLAIN, task
from poisonwatch.validation import Validation


@task(**PLAIN)
def record(
    folder: Path,
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    valid: Validation,
) -> None:
    """Write the verdicts, and what they were reached with: without any of these files a run
    directory is not complete.
    """
    detection = found.detection
    # Through the module: a test stops a run between two of its files.
    runs.write_config(folder, config, summary["audit_id"])
    runs.write_sentinels(folder, detection)
    runs.write_scores(folder, detection)
    runs.write_coefficients(folder, detection)
    runs.write_trusted(folder, detection)
    runs.write_flags(folder, detection.flags)
    runs.write_rejected(folder, valid.rejected)
    write_validation(folder, valid)


@task(**PLAIN)
def explain_verdicts(
    ledger: Ledger,
    folder: Path,
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    valid: Validation,
    attempts: Attempts,
    discovered: DiscoveryReport | None = None,
) -> None:
    """Write evidence, what was discovered, pictures, the report and the operators: a file that
    fails is missing, and all others are there.

    The ledger knows the earlier audits of the name.
    """
    detection = found.detection
    with _file(attempts, folder / "evidence.jsonl"):
        runs.write_evidence(folder, found.evidence)
    with _file(attempts, folder / "nearest.jsonl"):
        runs.write_nearest(folder, found.evidence, detection.rows.trusted)
    with _file(attempts, folder / "near_copies.jsonl"):
        runs.write_near_copies(folder, detection, found.near_copies, found.groups)
    if discovered is not None:
        with _file(attempts, folder / DISCOVERY_FILE):
            write_discovery(folder / DISCOVERY_FILE, discovered)
        with _file(attempts, folder / DIRECTIONS_FILE):
            if isinstance(found.fitted, StreamedFit):
                new = len(detection.rows.new)
                fingerprint = summary["model"]["fingerprint"]
                save_directions(folder, found.fitted, new, fingerprint)
    with _file(attempts, folder / "validation.html"):
        write_validation_page(folder, valid, summary["name"])
    # With nothing new, nothing was fitted; and a closed form has no learning curve.
    if isinstance(found.fitted, TrainedFit):
        with _file(attempts, folder / "learning_curve.csv"):
            runs.write_learning_curve(folder, found.fitted.curve)
    if found.fitted is not None:
        with _file(attempts, folder / OPERATORS_FILE):
            model = summary["model"]
            reading = model.get("reading", "")
            save_operators(folder, found.fitted, config, model["fingerprint"], reading)
    past: list[PastAudit] = []
    with attempts.part("earlier audits", "not looked up"):
        past = list_previous_audits(ledger, config.name)
    pictures = draw_pictures(detection, build_trend(past, summary), attempts)
    with _file(attempts, folder / "plots"):
        write_plots(folder, detection.panels, pictures)
    # Last, since it tells what failed before it.
    with _file(attempts, folder / "report.html"):
        page = _render_report(
            config, summary, found, valid, past, pictures, attempts, discovered=discovered
        )
        (folder / "report.html").write_text(page, encoding="utf-8")


@contextmanager
def _file(attempts: Attempts, path: Path) -> Iterator[None]:
    """A file or folder that may fail to be written: then nothing of it is left, since half of it
    would be read as all there is.
    """
    with attempts.part(path.name, "not written"):
        try:
            yield
        except Exception:
            with suppress(OSError):
                remove(path)
            raise


def _render_report(
    config: AuditConfig,
    summary: Mapping[str, Any],
    found: AttributionResult,
    valid: Validation,
    past: Sequence[PastAudit],
    pictures: Pictures,
    attempts: Attempts,
    discovered: DiscoveryReport | None,
) -> str:
    """The report; or a page in its place, which says that it failed."""
    pages: dict[str, str | None] = {}
    with attempts.part("links of the report", "not made"):
        pages["dashboard"] = make_dashboard_url(config, summary["audit_id"])
        pages["MLflow"] = make_mlflow_run_url(
            config, summary["mlflow_experiment_id"], summary["mlflow_run_id"]
        )
    with attempts.part("the report", "not drawn"):
        return render_report(
            {**summary, "failures": attempts.to_records()},
            found.detection,
            rejected=valid.rejected,
            evidence=found.evidence,
            past=past,
            pages=pages,
            topics=found.new_topics,
            near_copies=found.near_copies,
            pictures=pictures,
            discovered=discovered,
        )
    return render_stand_in(summary, tell_failures({"failures": attempts.to_records()}))


@task(**PLAIN)
def conclude(folder: Path, summary: Mapping[str, Any]) -> str:
    """Write the summary, since it tells what failed on the way, and the checksums of all files:
    returns their seal.
    """
    runs.write_summary(folder, summary)
    return write_checksums(folder)
