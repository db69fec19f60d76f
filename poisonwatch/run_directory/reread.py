"""The rows of a past audit, read again: new ones from the ledger, trusted ones from where the audit
found them.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from poisonwatch.config import AuditConfig
from poisonwatch.errors import PoisonwatchError
from poisonwatch.examples import Example
from poisonwatch.ledger.batches import load_examples
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.read_only import open_to_read
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import read_source


class AuditedRows:
    """Reads rows of an audit again by their ids: a `RowReader`.

    A row that changed since has another id, and is not found; nor is any of a ledger or a source
    that is gone.
    """

    def __init__(self, config: AuditConfig, ledger: Ledger | None = None) -> None:
        """From the `ledger`, by default the audit's own."""
        self._config, self._ledger = config, ledger

    def __call__(self, ids: Sequence[str]) -> Mapping[str, Example]:
        """Those of the rows that can be read, by id."""
        found = self._load_new(ids)
        missing = set(ids) - found.keys()
        if missing and self._config.reference is not None:
            found |= _find_in_source(self._config.reference, missing)
        return found

    def _load_new(self, ids: Sequence[str]) -> dict[str, Example]:
        with ExitStack() as opened:
            try:
                ledger = self._ledger
                if ledger is None:
                    ledger = opened.enter_context(open_to_read(self._config.state))
                return load_examples(ledger, ids)
            # A ledger that is gone is as good as none: sketches tell something still.
            except PoisonwatchError:
                return {}


def _find_in_source(source: SourceConfig, ids: set[str]) -> dict[str, Example]:
    """Those of the rows that a source holds, by id; none of one that cannot be read."""
    found: dict[str, Example] = {}
    try:
        for row, draft in read_source(source):
            example = draft.to_example(row) if row.record is not None else None
            if example is not None and example.id in ids:
                found[example.id] = example
    except PoisonwatchError:
        return {}
    return found
