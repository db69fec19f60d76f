"""Rows in: pull and validate."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from poisonwatch.config import AuditConfig
from poisonwatch.examples import Example, iterate_ids
from poisonwatch.failures import Attempts
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.ledger.batches import (
    LedgerBatch,
    choose_batch,
    count_passed_by_file,
    find_audited_ids,
    hash_checks,
    hash_measurement,
    load_audited_batch,
    load_current_batch,
)
from poisonwatch.ledger.intake import IngestStats, ingest
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.progress import Progress
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources import open as sources
from poisonwatch.sources.open import SourceRows
from poisonwatch.sources.spooled import spool_source
from poisonwatch.stride.sampling import draw_first
from poisonwatch.tasks.options import PLAIN, WITH_RETRIES, should_retry, task
from poisonwatch.validation import Facts, Validation


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def pull(
    ledger: Ledger, config: AuditConfig, progress: Progress, attempts: Attempts | None = None
) -> IngestStats:
    """Bring the ledger up to what the source holds; `attempts` is told of records that stay
    unsigned.
    """
    return ingest(ledger, config.name, config.source, progress, attempts)


@task(**PLAIN)
def choose(ledger: Ledger, config: AuditConfig, version: Version, again: bool) -> LedgerBatch:
    """The rows to be audited: what no audit has covered; `again`, all; those of the run that the
    configuration replays.
    """
    return _choose(ledger, config, version, again)


@task(**PLAIN)
def claim(
    ledger: Ledger, config: AuditConfig, version: Version, again: bool, audit: int
) -> LedgerBatch:
    """What `choose` chooses, asked once more and claimed for the audit of that number: another
    name's audit may have taken some of it since.
    """
    return _choose(ledger, config, version, again, audit)


def _choose(
    ledger: Ledger, config: AuditConfig, version: Version, again: bool, audit: int | None = None
) -> LedgerBatch:
    # A replay audits the rows of its run, whatever came since.
    if config.replay.audit_id:
        replayed = load_audited_batch(ledger, config.replay.audit_id)
        if replayed is not None:
            return replayed
    if again:
        return load_current_batch(ledger, config.name, audit)
    return choose_batch(
        ledger,
        config.name,
        version,
        checks=hash_checks(config.validation),
        window=config.window,
        measurement=hash_measurement(config, version),
        audit=audit,
    )


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def pull_all(source: SourceConfig) -> SourceRows:
    """Read every row of a source, whatever the ledger knows."""
    return sources.read_source(source)


@task(**PLAIN)
def validate(
    rows: SourceRows, config: AuditConfig, ledger: Ledger | None = None, pack: Path | None = None
) -> Validation:
    """Split rows into examples and rejections, by what the ledger knows of earlier ones; raises
    SourceError where too many fail. Examples go to the file `pack`, where there is one, and are
    read from there.
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
    return check_rows(rows, config.validation, facts, pack)


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def pull_reference(
    config: AuditConfig, new: Sequence[Example], benign: Sequence[Example]
) -> Validation:
    """A sample of the trusted rows, those that people called benign among them, without any that
    are among the new.

    With nothing new there is nothing to compare with them, and they are not read.
    """
    if not new:
        return Validation.empty()
    # However many rows are trusted, those that are drawn are all that stays.
    with tempfile.TemporaryDirectory() as folder:
        read = Validation.empty()
        if config.reference:
            facts = Facts(ignore=config.reference.ignore)
            pack = Path(folder) / "trusted.arrow"
            with spool_source(config.reference) as rows:
                read = check_rows(rows, config.validation, facts, pack)
        sample = _draw_trusted(read.examples, benign, new, config)
        return replace(read, examples=sample)


def _draw_trusted(
    read: Sequence[Example], benign: Sequence[Example], new: Sequence[Example], config: AuditConfig
) -> list[Example]:
    """Of the trusted rows of a source, and then those called benign, as many as an audit compares
    with. The draw goes by ids, and what is drawn stays in this order.
    """
    # A row that is audited cannot vouch for itself.
    own = set(iterate_ids(new))
    called_benign = {example.id: example for example in benign if example.id not in own}

    def list_ids() -> Iterator[str]:
        only_benign = dict.fromkeys(called_benign)
        for id in iterate_ids(read):
            only_benign.pop(id, None)
            if id not in own:
                yield id
        yield from only_benign

    drawn = draw_first(list_ids(), config.seed, config.reference_rows)
    sample: list[Example] = []
    for place, id in enumerate(iterate_ids(read)):
        if id in drawn:
            sample.append(called_benign.pop(id) if id in called_benign else read[place])
    sample += [example for id, example in called_benign.items() if id in drawn]
    return sample
