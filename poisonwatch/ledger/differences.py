"""What the ledger holds that is not what its records say."""

from dataclasses import asdict, dataclass

from poisonwatch.text.display import excerpt

SHOWN_CHARS = 100  # of what was expected and found


@dataclass(frozen=True, slots=True)
class Difference:
    """Something (`what`, such as "row 3f2a91c07d12ab34: status") that is not as it was recorded.
    Row text is never in it.
    """

    what: str
    expected: str
    found: str

    @property
    def words(self) -> str:
        """In one line, for people."""
        expected, found = excerpt(self.expected, SHOWN_CHARS), excerpt(self.found, SHOWN_CHARS)
        return f"{excerpt(self.what, SHOWN_CHARS)}: expected {expected}, found {found}"

    def record(self) -> dict[str, str]:
        """As JSON."""
        return asdict(self)
