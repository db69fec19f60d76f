"""Who is notified when rows are flagged."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.text.addresses import HIDDEN, is_variable, parse_address
from poisonwatch.text.redaction import is_called_secret


@dataclass(frozen=True, slots=True)
class Target:
    """Where alerts go: the `number`th of `alerts`, from 1, and its `kind`: the URL's scheme, or
    block.

    `id` stands for it in the ledger. It follows from the address as it is written, without
    passwords and what its query says.
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
            address = _drop_secrets(setting.url)
        kind = _find_kind(address)
        id = f"{kind}-{compute_short_digest(address)}"
        met[address] += 1
        # Two targets of one address (with other severities, say) are delivered to apart.
        if met[address] > 1:
            id += f"-{met[address]}"
        found.append(Target(number, kind, id=id, setting=setting))
    return found


def _drop_secrets(url: str) -> str:
    """An address by which two are told apart. Written as ever, since ledgers hold its digest."""
    address = parse_address(url)
    if address is None:
        return url
    user = ""
    if address.names_user:
        password = address.password if is_variable(address.password) else HIDDEN
        user = f"{address.user}:{password}@" if address.password else f"{HIDDEN}@"
    query = "&".join(f"{name}={_keep_plain(name, value)}" for name, value in address.pairs)
    rest = "?".join(filter(None, (address.path, query)))
    return f"{address.scheme}://{user}{address.place}{rest}"


def _keep_plain(name: str, value: str) -> str:
    """What a query says, unless it is called a secret."""
    if is_called_secret(name) and not is_variable(value):
        return HIDDEN
    return value


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
