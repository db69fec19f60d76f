"""Catch up: read people's verdicts, and notify whoever was not reached when the audits ran."""

from dataclasses import dataclass

from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.prefect_settings import find_prefect_api
from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.wind_up import notify_all
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.reviews import read_reviews


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """How many verdicts were read, and how many of what was sent, by task; None where it failed,
    which `warnings` explain.
    """

    verdicts: int | None
    notified: dict[str, int | None]
    warnings: list[str]


def sync(config: AuditConfig, reporter: Reporter) -> SyncOutcome:
    """Deliver what earlier audits of a name still have to, without an audit. Prefect is notified
    only where a server is configured. Raises InputError where no audit has run.
    """
    secrets = config.find_secrets()
    engine = Engine(inline=True, secrets=secrets)
    ledger_at = Ledger.existing(config.state, signer=config.signing.load_signer())
    with conceal_all(secrets), ledger_at as ledger, ledger.lock(config.name, reporter.note_waiting):
        # read first: rows that were answered are not put up for review again
        verdicts: int | None = 0
        if config.review.mlflow:
            verdicts = engine.attempt(read_reviews, ledger, config)
        # without a configured server Prefect would start a temporary one, that nobody looks at
        has_server = bool(find_prefect_api())
        notified = notify_all(ledger, config, engine, prefect=has_server, at_once=True)
    return SyncOutcome(verdicts, notified, engine.warnings)
