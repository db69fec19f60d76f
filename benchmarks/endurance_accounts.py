"""What benchmarks/endurance.py counts after a fault: whether ledger, run directories, MLflow and the
receiver of alerts agree, and whether somebody was told that audits had stopped.
"""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from endurance_site import FIRST_ROWS, ROWS, Site, count_appended

EVERY = timedelta(hours=1)
# all that must be nothing, whatever went wrong
MUST_BE_NOTHING = (
    "rows without a result",
    "rows with two results",
    "marked rows not flagged",
    "flagged rows nobody was told of",
    "alerts not delivered",
    "alerts not received",
    "accounts still owed",
    "finished audits without a finished MLflow run",
    "MLflow runs left running",
    "MLflow runs twice",
    "finished audits without their report",
    "half-written run directories",
    "differences that verify finds",
)


def tell_of_silence(site: Site, now: datetime | None = None) -> dict[str, Any]:
    """What is told two intervals after the last audit that came to its results began, by whoever
    looks then: by an alert, or by the exit code of `status`.
    """
    from poisonwatch.alerts.targets import list_targets
    from poisonwatch.config_file import load_config
    from poisonwatch.errors import PoisonwatchError
    from poisonwatch.integrations.notices import tell_silences
    from poisonwatch.liveness.standing import gather_standing

    settings = load_config(site.config)
    before = count_overdue_alerts(site)
    failed = ""
    at = now or find_last_start(site) + 2 * EVERY
    try:
        tell_silences(settings, at)
    except PoisonwatchError as error:
        failed = str(error)
    names = {target.id: str(target) for target in list_targets(settings)}
    standing = gather_standing(settings, site.config, names, at, 0.0)
    return {
        "alert": count_overdue_alerts(site) > before,
        "status": 0 if standing.is_well else 1,
        "said": (standing.troubles or [""])[0][:160],
        **({"not sent": failed[:160]} if failed else {}),
    }


def count_overdue_alerts(site: Site) -> int:
    titles = [message.get("title", "") for message in site.receiver.received]
    return sum("do not come" in title for title in titles)


# the last audit's start, kept here: a ledger that is down cannot be asked
_last_start = datetime(1970, 1, 1, tzinfo=UTC)


def find_last_start(site: Site) -> datetime:
    """When the last audit that came to its results began; what was known before, where the ledger
    cannot be asked.
    """
    from poisonwatch.errors import PoisonwatchError

    global _last_start
    try:
        done = [audit for audit in list_audits(site) if audit.has_results]
    except PoisonwatchError:
        return _last_start
    _last_start = datetime.fromisoformat(max(done, key=lambda audit: audit.number).started_at)
    return _last_start


def list_audits(site: Site) -> list[Any]:
    """The audits of the site's name."""
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger

    settings = load_config(site.config)
    with Ledger.existing(settings.state) as ledger:
        return [audit for audit in list_past_audits(ledger) if audit.name == settings.name]


def account(config: Path, received: list[Any]) -> dict[str, Any]:
    """Whether all is where it belongs; `received` is what came to the receiver of alerts."""
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.history import list_past_audits
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.verification.verify import verify_ledger

    settings = load_config(config)
    told = json.dumps(received)
    keys = re.findall(r"Alert ([0-9a-f]{16}) of", told)
    with Ledger.existing(settings.state) as ledger:
        past = list_past_audits(ledger)
        with ledger.read() as connection:
            found = count_in_ledger(connection, config.parent)
            alerts = list_alert_keys(connection)
        verification = verify_ledger(ledger, settings.name)
    finished = [each for each in past if (each.name, each.state) == (settings.name, "finished")]
    # one without new rows may leave a line in the ledger, and nothing else
    done = [audit for audit in finished if audit.summary.get("counts", {}).get("new")]
    repeated = Counter(keys)
    return {
        "audits": dict(Counter(audit.state for audit in past)),
        **found,
        # by itself, or in a digest that names it
        "alerts not received": sum(key not in told for key in alerts),
        "alerts received twice": sum(n > 1 for n in repeated.values()),
        **count_in_mlflow(settings, {audit.audit_id for audit in done}),
        "finished audits without their report": sum(is_report_missing(audit) for audit in done),
        "half-written run directories": len(list(config.parent.glob("runs/*.part"))),
        "differences that verify finds": len(verification.differences),
    }


def is_report_missing(audit: Any) -> bool:
    """Whether there is no report, and the audit does not say that it could not be written."""
    told = {failure["part"] for failure in audit.summary.get("failures", [])}
    return "report.html" not in told and not (audit.run_dir / "report.html").is_file()


def list_alert_keys(connection: Any) -> list[str]:
    from sqlalchemy import select

    from poisonwatch.ledger import tables as t

    return [row.key for row in connection.execute(select(t.alerts.c.key))]


def count_in_ledger(connection: Any, sources: Path) -> dict[str, int]:
    """Rows, flags, alerts and what is pending; `sources` is the folder of the rows of all names."""
    from sqlalchemy import func, select

    from poisonwatch.ledger import tables as t
    from poisonwatch.ledger.outbox import ALERT_KIND, AUDIT_KIND, match_pending

    def count(query: Any) -> int:
        counted = select(func.count()).select_from(query.subquery())
        return int(connection.execute(counted).scalar_one())

    rows = count(select(t.places.c.row).distinct())
    flagged = count(select(t.flags.c.row).distinct())
    of_row = select(t.results.c.row).group_by(t.results.c.row)
    appended = count_appended(sources / "rows.jsonl")
    expected = FIRST_ROWS + appended * (ROWS + 1)
    for others in sources.glob("second-*.jsonl"):
        expected += len(others.read_text().splitlines())
    return {
        "rows": rows,
        "rows without a result": expected - count(select(t.results.c.row).distinct()),
        "rows with two results": count(of_row.having(func.count() > 1)),
        "marked rows": appended,
        "marked rows not flagged": sum(not _is_flagged(connection, i) for i in range(appended)),
        "flagged rows": flagged,
        "flagged rows nobody was told of": flagged
        - count(select(t.notified_rows.c.row).distinct()),
        "alerts": count(select(t.alerts)),
        "alerts not delivered": count(select(t.deliveries).where(match_pending(ALERT_KIND))),
        "accounts still owed": count(select(t.deliveries).where(match_pending(AUDIT_KIND))),
    }


def _is_flagged(connection: Any, i: int) -> bool:
    """Whether the marked row that was appended as the i-th is, by its position in the file."""
    from sqlalchemy import select

    from poisonwatch.ledger import tables as t

    position = FIRST_ROWS + (i + 1) * (ROWS + 1) - 1
    marked = (
        select(t.places.c.row)
        .join(t.files, t.files.c.file == t.places.c.file)
        .where(t.places.c.position == position, t.files.c.name == "rows.jsonl")
    )
    flag = select(t.flags.c.row).where(t.flags.c.row.in_(marked))
    return connection.execute(flag).first() is not None


def count_in_mlflow(settings: Any, finished: set[str]) -> dict[str, int]:
    """Runs that are missing, open or there twice; `finished` are the ids of finished audits."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking)
    experiment = client.get_experiment_by_name(settings.name)
    assert experiment is not None
    is_audit = "tags.`poisonwatch.kind` = 'audit'"
    runs = client.search_runs([experiment.experiment_id], is_audit, max_results=5000)
    status = {run.data.tags["poisonwatch.audit_id"]: run.info.status for run in runs}
    unfinished = [id for id in finished if status.get(id) != "FINISHED"]
    return {
        "finished audits without a finished MLflow run": len(unfinished),
        "MLflow runs left running": sum(state == "RUNNING" for state in status.values()),
        "MLflow runs twice": len(runs) - len(status),
    }
