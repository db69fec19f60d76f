"""The rows that a model was trained on, audited or not, and those that are trusted."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError, SourceError
from poisonwatch.examples import AuditRows, Example
from poisonwatch.ledger.batches import find_suspected_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import stream_source
from poisonwatch.stride.sampling import draw_first


def read_rows(config: AuditConfig, release: Path | None = None) -> AuditRows:
    """The rows of a release (its manifest's folder), by default those of the audit file's source,
    as new ones, beside a sample of its trusted rows. Raises SourceError where there is no row.
    """
    source = config.source if release is None else locate_release(config.source, release)
    new = {example.id: example for example in _stream_examples(source)}
    if not new:
        raise SourceError(f"{source.address} holds no row that can be read")
    return AuditRows(tuple(new.values()), tuple(_draw_trusted(config, frozenset(new))))


def locate_release(audited: SourceConfig, manifest: Path) -> SourceConfig:
    """Where the cleared rows beside a manifest are, to be read as those of the audited source."""
    # What says where rows are (hub, split, query) is another source's.
    placed = {"path", "hub", "subset", "split", "revision", "sql", "query", "watermark"}
    folder = manifest.resolve().parent
    read = audited.model_dump(exclude=placed) | {"path": str(folder)}
    return SourceConfig.model_validate(read).with_base_folder(folder.parent)


def _stream_examples(source: SourceConfig) -> Iterator[Example]:
    for row, draft in stream_source(source, {}):
        example = None if row.record is None else draft.to_example(row)
        if example is not None:
            yield example


def _draw_trusted(config: AuditConfig, own: frozenset[str]) -> list[Example]:
    """Trusted rows that are none of the `own`, as many as an audit compares with."""
    if config.reference is None:
        return []
    ids = (example.id for example in _stream_examples(config.reference) if example.id not in own)
    drawn = draw_first(ids, config.seed, config.reference_rows)
    trusted = {
        example.id: example for example in _stream_examples(config.reference) if example.id in drawn
    }
    return list(trusted.values())


def select_ordinary(config: AuditConfig, rows: AuditRows) -> Sequence[Example]:
    """Rows that say how far honest tuning moves an answer: the trusted ones, or where the audit
    file names none, those that no audit and no person holds anything against.
    """
    if config.reference is not None:
        return rows.trusted
    try:
        with Ledger.existing(config.state) as ledger:
            suspected = find_suspected_ids(ledger)
    except InputError:
        suspected = set()
    return [row for row in rows.new if row.id not in suspected]
