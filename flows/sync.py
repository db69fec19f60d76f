"""Catch up: read people's verdicts, and tell whoever was not reached when the audits ran."""

from dataclasses import dataclass

from prefect.settings import PREFECT_API_URL

from poisonwatch.config import AuditConfig
from poisonwatch.flows.audit import notify_all
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.reviews import read_reviews


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """How many verdicts were read, and how many of what was told, by task; None where it failed,
    which `troubles` explain.
    """

    verdicts: int | None
    told: dict[str, int | None]
    warnings: list[str]


def sync(config: AuditConfig, reporter: Reporter) -> SyncOutcome:
    """Settle what earlier audits of a name owe, without an audit. Prefect is told only where a
    server is configured.
    """
    engine = Engine(inline=True)
    with Ledger.existing(config.state) as ledger, ledger.alone(reporter.note_waiting):
        verdicts = engine.attempt(read_reviews, ledger, config) if config.review else 0
        told = notify_all(ledger, config, engine, prefect=bool(PREFECT_API_URL.value()))
    return SyncOutcome(verdicts, told, engine.warnings)
