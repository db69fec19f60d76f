"""Releases in a lineage: by their records, and by their manifests, where these still lie where they
were written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from poisonwatch.errors import InputError
from poisonwatch.ledger.probes import PastProbe
from poisonwatch.ledger.records import Record, read_records
from poisonwatch.lineage.step import Step
from poisonwatch.release.manifest import Manifest, load_manifest
from poisonwatch.release.release import RELEASE_KIND
from poisonwatch.release.trainings import Training
from poisonwatch.sources.saved import MANIFEST_NAME
from poisonwatch.text.words import plural

SHOWN_DIGITS = 12
MISSING = "its manifest is not where it was written: which rows it holds is not known here"


@dataclass(frozen=True, slots=True)
class PastRelease:
    """A release by its record: SHA-256 of its manifest, of which audits' name, and its folder, as
    far as that was recorded.
    """

    number: int
    manifest: str
    name: str
    counts: dict[str, int]
    folder: Path | None
    released_at: str

    def load(self) -> Manifest | None:
        """Its manifest; None where it is not there any more, or another."""
        if self.folder is None:
            return None
        try:
            manifest, digest = load_manifest(self.folder / MANIFEST_NAME)
        except (OSError, InputError):
            return None
        return manifest if digest == self.manifest else None

    def make_step(self) -> Step:
        """As a step: how many rows, and where."""
        rows = self.counts.get("clean", 0) + self.counts.get("repaired", 0)
        words = plural(rows, "row")
        if self.counts.get("repaired"):
            words += f", {self.counts['repaired']} of them repaired"
        if self.folder is not None:
            words += f", in {self.folder}"
        facts: dict[str, Any] = {"manifest": self.manifest, "record": self.number}
        facts["counts"] = self.counts
        facts["folder"] = None if self.folder is None else str(self.folder)
        name = self.manifest[:SHOWN_DIGITS]
        return Step("release", name, self.released_at, words, facts)


def list_releases(connection: Connection, name: str | None = None) -> list[PastRelease]:
    """The releases of audits of a name (None: of all), oldest first."""
    found = [_to_release(record) for record in read_records(connection, RELEASE_KIND)]
    return [release for release in found if name in (None, release.name)]


def _to_release(record: Record) -> PastRelease:
    said: Any = record.statement.predicate
    return PastRelease(
        number=record.number,
        manifest=record.item or "",
        name=said["name"],
        counts=dict(said["counts"]),
        folder=Path(said["folder"]) if said.get("folder") else None,
        released_at=said["chain"]["recorded_at"],
    )


def make_training_step(training: Training) -> Step:
    """A training run as a step: what it named, and what the gate answered."""
    named = ", ".join(digest[:SHOWN_DIGITS] for digest in training.manifests)
    answer = "cleared" if training.cleared else "refused"
    words = f"named release {named}: {plural(training.rows, 'row')}, {answer}"
    facts = {
        "manifests": list(training.manifests),
        "rows": training.rows,
        "cleared": training.cleared,
        "record": training.record,
    }
    return Step("training run", training.run, training.asked_at, words, facts)


def make_probe_step(probe: PastProbe) -> Step:
    """A probe of a trained model as a step: which of its sentinels and panels moved."""
    words = f"checkpoint {probe.checkpoint[:SHOWN_DIGITS]}: {probe.words}"
    facts = {
        "checkpoint": probe.checkpoint,
        "manifest": probe.release,
        "asked": probe.asked,
        "moved": list(probe.moved),
        "moved_panels": list(probe.moved_panels),
    }
    return Step("probe", probe.probe_id, probe.recorded_at, words, facts)
