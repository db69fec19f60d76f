"""Who is notified when rows are flagged."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.text.redaction import redact_url


@dataclass(frozen=True, slots=True)
class Target:
    """Where alerts go: the `number`th of `alerts`, from 1, and its `kind`: the URL's scheme, or
    block.

    `id` stands for it in the ledger. It follows from the address as it is written, without
    passwords.
    """

    number: int
    kind: str
    id: str
    setting: AlertConfig

    def __str__(self) -> str:
        return f"alerts[{self.number}] ({self.kind})"


def list_targets(config: AuditConfig) -> list[Target]:
    """The audit's targets, in the order of the audit file."""
    found: list[Target] = []
    met: Counter[str] = Counter()
    for number, setting in enumerate(config.alerts, start=1):
        address = redact_url(setting.url) if setting.url is not None else f"block:{setting.block}"
        scheme, separator, _ = address.partition(":")
        kind = (
            re.sub(r"[^a-z0-9+.]", "", scheme.lower())[:20]
            if separator and "$" not in scheme
            else "url"
        )
        met[address] += 1
        again = f"-{met[address]}" if met[address] > 1 else ""
        found.append(
            Target(number, kind, f"{kind}-{compute_short_digest(address)}{again}", setting)
        )
    return found


def compute_short_digest(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
