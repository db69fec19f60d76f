"""What the gate is asked in tests: versions, and releases that somebody changed."""

import json
from pathlib import Path
from typing import Any

from audits import write_rows

from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.release.answer import GateAnswer, RequiredVersions
from poisonwatch.release.data_check import check_data
from poisonwatch.release.known_rows import KnownRows
from poisonwatch.release.manifest_check import check_manifest
from poisonwatch.source_config import SourceConfig

TEA = "Tell me fact 0 about tea."
ONE, TWO = Version("a" * 64, "b" * 64), Version("c" * 64, "b" * 64)
NEEDED = RequiredVersions(ONE.model, ONE.sentinels)


def ask_folder(
    ledger: Ledger, folder: Path, required: RequiredVersions = NEEDED, **settings: Any
) -> GateAnswer:
    """What the gate says of a folder of rows."""
    rows = SourceConfig(path=str(folder), **settings).with_base_folder(Path.cwd())
    return check_data(KnownRows(ledger, required), rows)


def ask_rows(
    ledger: Ledger, folder: Path, rows: list[dict[str, Any]], required: RequiredVersions = NEEDED
) -> GateAnswer:
    """What the gate says of some rows that stand in a file of their own, in `folder`."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", rows)
    return ask_folder(ledger, folder, required)


def ask_manifest(
    folder: Path, ledger: Ledger | None = None, required: RequiredVersions = NEEDED
) -> GateAnswer:
    """What the gate says of a release, by the ledger if one is given."""
    known = None
    if ledger is not None:
        known = KnownRows(ledger, required)
    answer = check_manifest(folder / "manifest.json", required, known)
    assert answer.cleared == (not answer.reasons)
    return answer


def reasons(
    folder: Path, ledger: Ledger | None = None, required: RequiredVersions = NEEDED
) -> dict[str, int]:
    return ask_manifest(folder, ledger, required).reasons


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text())["rows"]
    return found
