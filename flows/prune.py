"""Remove what past audits left, as far as the audit file's `keep` lets it go."""

from poisonwatch.concealment import conceal_all
from poisonwatch.config import AuditConfig
from poisonwatch.flows.engine import Engine
from poisonwatch.flows.reporter import Reporter
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.tasks.pruning import PruneOutcome
from poisonwatch.tasks.pruning import prune as prune_task


def prune(config: AuditConfig, reporter: Reporter, remove: bool) -> PruneOutcome:
    """Find what goes, and `remove` it, while no audit is at work. Raises InputError where no audit
    has run.
    """
    secrets = config.find_secrets()
    engine = Engine(inline=True, secrets=secrets)
    signer = config.signing.load_signer()
    ledger_at = Ledger.existing(config.state, signer=signer)
    with conceal_all(secrets), ledger_at as ledger, ledger.lock(config.name, reporter.note_waiting):
        return engine(prune_task, ledger, config, remove)


def prune_if_asked(ledger: Ledger, config: AuditConfig, engine: Engine) -> None:
    """Last of all in an audit, where the audit file says so; a failure costs no verdict."""
    if config.keep.prune != "after-audit":
        return
    outcome = engine.attempt(prune_task, ledger, config)
    if outcome is not None:
        engine.warnings += [line for line in outcome.failures if line not in engine.warnings]
