"""The release that documents are about: its manifest, and its lineage by the ledger."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.lineage.step import Lineage
from poisonwatch.lineage.trace import trace
from poisonwatch.release.manifest import Manifest, compare_manifest, load_manifest
from poisonwatch.text.display import excerpt


@dataclass(frozen=True, slots=True)
class Subject:
    """A release: its name, `manifest` with its SHA-256 (`digest`), when it was written (ISO 8601),
    by which version of this library, its counts, and its lineage.
    """

    name: str
    manifest: Manifest
    digest: str
    created: str
    version: str
    counts: dict[str, int]
    lineage: Lineage

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return len(self.manifest.rows)


def read_subject(ledger: Ledger, name: str, path: Path) -> Subject:
    """The release of a manifest. Raises InputError where it is none of this ledger, or the files
    beside it are not what it says.
    """
    manifest, digest = load_manifest(path)
    found = compare_manifest(path.parent, manifest)
    if found.changed or found.lost or found.added or found.unlisted:
        raise InputError(
            f"the files beside {excerpt(str(path), 200)} are not what it says: `poisonwatch gate` "
            "names each difference"
        )
    head: dict[str, Any] = json.loads(path.read_bytes())
    return Subject(
        name=str(head["name"]),
        manifest=manifest,
        digest=digest,
        created=str(head["created"]),
        version=str(head["version"]),
        counts=dict(head["counts"]),
        lineage=trace(ledger, name, str(path)),
    )
