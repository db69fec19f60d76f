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
        address = f"block:{setting.block}"
        if setting.url is not None:
            # Without its password, which may be renewed: deliveries in the ledger outlive that.
            address = redact_url(setting.url)
        kind = _find_kind(address)
        id = f"{kind}-{compute_short_digest(address)}"
        met[address] += 1
        # Two targets of one address (with other severities, say) are delivered to apart.
        if met[address] > 1:
            id += f"-{met[address]}"
        found.append(Target(number, kind, id=id, setting=setting))
    return found


def _find_kind(address: str) -> str:
    """The scheme of an address, in characters that can be shown; "url" where it has none, or one
    that a variable of the environment spells.
    """
    scheme, separator, _ = address.partition(":")
    if not separator or "$" in scheme:
        return "url"
    return re.sub(r"[^a-z0-9+.]", "", scheme.lower())[:20]


def compute_short_digest(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
