"""Run directories are those of the ledger's audits, as these wrote them."""

import json
import shutil
from pathlib import Path

from ledgers import covered_ledger
from tampering import TEA, verify

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.checksums import write_checksums


def test_a_run_directory_of_an_audit_that_the_ledger_lacks_is_named(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Beside those of its audits, of the same name; others' are none of its business."""
    with ledger.read() as connection:
        place = connection.exec_driver_sql("SELECT run_dir FROM audits").scalars().first()
    runs = Path(str(place)).parent
    for name, audit in (("tiny", "lost"), ("other", "theirs")):
        (runs / audit).mkdir()
        (runs / audit / "summary.json").write_text(json.dumps({"name": name, "audit_id": audit}))
    try:
        assert [found.what for found in verify(ledger).differences] == ["run directory lost"]
    finally:
        shutil.rmtree(runs / "lost")
        shutil.rmtree(runs / "theirs")


def test_changed_files_are_named_and_absent_directories_counted(tmp_path: Path) -> None:
    """One without checksums is taken as it is; one that is not here may be on another machine."""
    run_dir = tmp_path / "run"
    with covered_ledger(tmp_path, TEA) as ledger:
        summary = run_dir / "summary.json"
        assert [found.found for found in verify(ledger).differences] == ["no summary"]
        summary.write_text(json.dumps({"audit_id": "run", "name": "tiny"}))
        found = verify(ledger)
        assert (found.is_whole, found.run_dirs, found.unsealed) == (True, 1, 1)
        write_checksums(run_dir)
        found = verify(ledger)
        assert (found.is_whole, found.run_dirs, found.unsealed) == (True, 1, 0)
        summary.write_text(json.dumps({"audit_id": "other"}))
        assert [found.what for found in verify(ledger).differences] == [
            "run directory run: summary.json",
            "run directory run: audit of its summary.json",
        ]
        shutil.rmtree(run_dir)
        found = verify(ledger)
        assert (found.is_whole, found.run_dirs, found.away) == (True, 0, 1)
