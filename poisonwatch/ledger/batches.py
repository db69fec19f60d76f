import hashlib
from dataclasses import dataclass

from poisonwatch.config import ValidationConfig
from poisonwatch.sources.open import SourceRows


@dataclass(frozen=True, slots=True)
class LedgerBatch:
    """Rows to be audited, and their `numbers` in the ledger, one for each; a content with two
    places comes twice.
    """

    rows: SourceRows
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.numbers)


def hash_checks(validation: ValidationConfig) -> str:
    """SHA-256 of the validation settings: rows that other settings rejected are validated anew."""
    return hashlib.sha256(validation.model_dump_json().encode()).hexdigest()
