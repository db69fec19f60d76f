"""Who signs statements: whatever holds a private key."""

from typing import Protocol


class Signer(Protocol):
    """Signs statements with one key."""

    @property
    def key_id(self) -> str:
        """Names the key."""

    def sign(self, payload: bytes) -> str:
        """The DSSE envelope of a statement, as JSON."""
