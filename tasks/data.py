"""Rows in: pull and validate."""

from dataclasses import replace
from functools import partial

from prefect import task

from poisonwatch.config import AuditConfig
from poisonwatch.examples import Example
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.ledger.batches import (
    LedgerBatch,
    choose_batch,
    count_passed_by_file,
    find_audited_ids,
    hash_checks,
    load_audited_batch,
    load_current_batch,
)
from poisonwatch.ledger.intake import IngestStats, ingest
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.progress import Progress
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources import open as sources
from poisonwatch.sources.open import SourceRows
from poisonwatch.stride.sampling import draw_order
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES, should_retry
from poisonwatch.validation import Facts, Validation


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def pull(ledger: Ledger, config: AuditConfig, progress: Progress) -> IngestStats:
    """Bring the ledger up to what the source holds."""
    return ingest(ledger, config.name, config.source, progress)


@task(**PLAIN)
def choose(ledger: Ledger, config: AuditConfig, version: Version, again: bool) -> LedgerBatch:
    """The rows to be audited: what no audit has covered; `again`, all; those of the run that the
    configuration replays.
    """
    # A replay audits the rows of its run, whatever came since.
    if config.replay.audit_id:
        replayed = load_audited_batch(ledger, config.replay.audit_id)
        if replayed is not None:
            return replayed
    if again:
        return load_current_batch(ledger, config.name)
    checks = hash_checks(config.validation)
    return choose_batch(ledger, config.name, version, checks, window=config.window)


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def pull_all(source: SourceConfig) -> SourceRows:
    """Read every row of a source, whatever the ledger knows."""
    return sources.read_source(source)


@task(**PLAIN)
def validate(rows: SourceRows, config: AuditConfig, ledger: Ledger | None = None) -> Validation:
    """Split rows into examples and rejections, by what the ledger knows of earlier ones; raises
    SourceError where too many fail.
    """
    facts = Facts(max_tokens=config.stride.max_tokens, ignore=config.source.ignore)
    if ledger is not None:
        mix = count_passed_by_file(ledger, config.name)
        facts = replace(
            facts,
            known=partial(find_audited_ids, ledger),
            earlier=mix,
            # The rows at hand may be among those that passed before.
            accepted=max(sum(mix.values()) - len(rows), 0),
        )
    return check_rows(rows, config.validation, facts)


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def pull_reference(config: AuditConfig, new: list[Example], benign: list[Example]) -> Validation:
    """A sample of the trusted rows, those that people called benign among them, without any that
    are among the new.

    With nothing new there is nothing to compare with them, and they are not read.
    """
    if not new:
        return Validation.empty()
    read = Validation.empty()
    if config.reference:
        facts = Facts(ignore=config.reference.ignore)
        read = check_rows(sources.read_source(config.reference), config.validation, facts)
    new_ids = {example.id for example in new}
    trusted: dict[str, Example] = {}
    for example in [*read.examples, *benign]:
        # A row that is audited cannot vouch for itself.
        if example.id not in new_ids:
            trusted[example.id] = example
    ids = list(trusted)
    # The draw goes by ids, and what is drawn stays in the order of the source.
    drawn = draw_order(ids, config.seed)[: config.reference_rows]
    sample = [trusted[ids[i]] for i in sorted(drawn.tolist())]
    return replace(read, examples=sample)
