"""What comes after an audit's results: everybody is told, and what is old goes."""

from poisonwatch.config import AuditConfig
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.liveness import expects_audits, owes_notices, ping
from poisonwatch.flows.prune import prune_if_asked
from poisonwatch.integrations.mlflow.owed import IncompleteUploadError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.deliveries import deliver, remind
from poisonwatch.tasks.lineage import tell_lineage
from poisonwatch.tasks.liveness import tell_silences
from poisonwatch.tasks.publishing import publish
from poisonwatch.tasks.reviews import queue_reviews
from poisonwatch.tasks.tracking import track


def wind_up(ledger: Ledger, config: AuditConfig, engine: Engine, prefect: bool) -> None:
    """Once an audit is in the ledger: notify whoever is to hear of it, prune where that is asked
    for, and ping the monitor last, when all is done.
    """
    notify_all(ledger, config, engine, prefect)
    prune_if_asked(ledger, config, engine)
    ping(config, engine, "success")


def notify_all(
    ledger: Ledger, config: AuditConfig, engine: Engine, prefect: bool, at_once: bool = False
) -> dict[str, int | None]:
    """Notify everybody who still has to hear of this audit, or of earlier ones: how many of what,
    by task. With `at_once`, alert targets that failed are tried before it is their time.

    What fails is None; it stays pending, and is tried again next time.
    """
    # alerts first: a person who waits for one gains by it, a tracking server does not
    engine.attempt(remind, ledger, config)
    notified = {
        "deliver": engine.attempt(deliver, ledger, config, at_once),
        "track": engine.attempt(track, ledger, config),
    }
    if config.openlineage.find_url():
        notified["tell_lineage"] = engine.attempt(tell_lineage, ledger, config)
    if expects_audits(ledger, config) or owes_notices(ledger, config):
        notified["tell_silences"] = engine.attempt(tell_silences, ledger, config)
    # rows are put up for review beside the audit's run, which is there once it was tracked
    was_reached = isinstance(engine.failed.get(track.name), IncompleteUploadError)
    if config.review.mlflow and (notified["track"] is not None or was_reached):
        notified["queue_reviews"] = engine.attempt(queue_reviews, ledger, config)
    if prefect:
        notified["publish"] = engine.attempt(publish, ledger, config)
    return notified
