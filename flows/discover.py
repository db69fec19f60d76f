"""Groups of rows that push the model the same way, looked for in the records of a past audit, or
taken from where an earlier look was kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from poisonwatch import __version__
from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.examples import Example
from poisonwatch.failures import Attempts, tell_failures
from poisonwatch.flows.bars import Bars
from poisonwatch.integrations.mlflow.owed import upload_owed_findings
from poisonwatch.ledger.findings import owe_finding
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.discovery import get_later_path, read_discovery, write_discovery
from poisonwatch.run_directory.reread import AuditedRows


@dataclass(frozen=True, slots=True)
class DiscoveryOutcome:
    """What was discovered among the rows of an audit, the rows of its groups that can be read, by
    id, and what went wrong beside it.
    """

    past: PastAudit
    report: DiscoveryReport
    examples: Mapping[str, Example]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is asked: what the steered model says about the first `say` groups (None: a few), and
    about the group of a number; `again` has the groups looked for anew.
    """

    say: int | None = None
    about: int | None = None
    again: bool = False


def find_kept(past: PastAudit, inquiry: Inquiry) -> DiscoveryReport | None:
    """What an earlier look at a past audit kept, where that answers the inquiry: then neither
    records nor a model are needed. None where it does not.
    """
    report = None if inquiry.again else _read_earlier(past)
    if report is None or report.list_unasked(inquiry.say, inquiry.about):
        return None
    return report


def _read_earlier(past: PastAudit) -> DiscoveryReport | None:
    report = read_discovery(past.run_dir)
    # Another version may find other groups.
    return None if report is None or report.version != __version__ else report


def discover_inline(
    config: AuditConfig, past: PastAudit, ledger: Ledger, inquiry: Inquiry, reporter: Bars
) -> DiscoveryOutcome:
    """Look for groups among the rows of a past audit, and ask the steered model about some: as far
    as an earlier look has not done so.

    What is new goes beside the audit's run in MLflow, where there is one. Raises RunError where the
    records are gone, are of another model, or say nothing of single rows.
    """
    secrets = config.find_secrets()
    attempts = Attempts()
    attempts.secrets = secrets
    with conceal_all(secrets):
        report = find_kept(past, inquiry)
        if report is None:
            # what is kept needs no model
            from poisonwatch.flows.looking import look_at_records

            earlier = None if inquiry.again else _read_earlier(past)
            report = look_at_records(config, past, ledger, earlier, inquiry, attempts, reporter)
            # Before it is written: what is owed of a look that was killed is told as it is kept.
            _owe_account(config, past, ledger, attempts)
            write_discovery(get_later_path(past.run_dir), report)
            if config.tracking is not None:
                with attempts.part("what was discovered", "is owed to MLflow (poisonwatch sync)"):
                    upload_owed_findings(ledger, config)
        shown = [row.example_id for group in report.groups for row in group.rows]
        examples = AuditedRows(config, ledger)(shown)
    warnings = tell_failures({"failures": attempts.to_records()})
    return DiscoveryOutcome(past, report, examples, warnings)


def _owe_account(config: AuditConfig, past: PastAudit, ledger: Ledger, attempts: Attempts) -> None:
    """Owe MLflow what is discovered, where it hears of audits. A ledger that cannot be written
    keeps nobody from looking.
    """
    if config.tracking is None or past.name != config.name:
        return
    with attempts.part("what was discovered", "is not told to MLflow"):
        owe_finding(ledger, past.number)
