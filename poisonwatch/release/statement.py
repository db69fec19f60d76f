"""The signed statement beside a manifest (`manifest.dsse.json`): that this manifest, with these
files, is what a release wrote.

    subjects     manifest.json and every file of cleared rows, by SHA-256
    predicate    name, counts, the head of the ledger's chain, the versions that cleared its rows
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poisonwatch.attestation.envelope import find_signers, read_payload
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.statement import Statement, build_statement, parse_statement
from poisonwatch.errors import InputError
from poisonwatch.release.manifest import Manifest
from poisonwatch.sources.saved import MANIFEST_NAME, SIGNED_NAME

MANIFEST_KIND = "manifest"
MAX_SIGNED_BYTES = 64 << 20
# What of a manifest's header the statement repeats, so that it can be read by itself.
REPEATED = ("name", "created", "version", "duplicates", "counts", "chain", "decisions", "audits")


@dataclass(frozen=True, slots=True)
class ManifestSeal:
    """What the file of signatures beside a manifest comes to: the ids of those keys asked for that
    signed it, and whether it is there (`exists`) and of this manifest and its files (`fits`).
    """

    exists: bool = False
    fits: bool = False
    signers: frozenset[str] = frozenset()


def build_manifest_statement(digest: str, header: Mapping[str, Any]) -> str:
    """The statement on a manifest with this SHA-256 and header."""
    subjects = {file["name"]: file["sha256"] for file in header["files"]}
    subjects[MANIFEST_NAME] = digest
    predicate = {key: header[key] for key in REPEATED}
    return build_statement(MANIFEST_KIND, subjects, predicate)


def read_seal(
    folder: Path, manifest: Manifest, digest: str, keys: Mapping[str, PublicKey]
) -> ManifestSeal:
    """What is signed of a manifest with this SHA-256."""
    path = folder / SIGNED_NAME
    if not path.is_file():
        return ManifestSeal()
    try:
        with path.open("rb") as file:
            envelope = file.read(MAX_SIGNED_BYTES + 1)
        if len(envelope) > MAX_SIGNED_BYTES:
            return ManifestSeal(exists=True)
        text = envelope.decode("ascii")
        payload = read_payload(text)
        statement = parse_statement(payload)
    except (InputError, UnicodeDecodeError):
        return ManifestSeal(exists=True)
    if not _is_of(statement, manifest, digest):
        return ManifestSeal(exists=True)
    signers = frozenset(find_signers(text, payload, keys))
    return ManifestSeal(exists=True, fits=True, signers=signers)


def _is_of(statement: Statement, manifest: Manifest, digest: str) -> bool:
    """Whether a statement is on this manifest, and on its files as the manifest has them."""
    subjects = {file.name: file.sha256 for file in manifest.files}
    subjects[MANIFEST_NAME] = digest
    return statement.kind == MANIFEST_KIND and dict(statement.subjects) == subjects
