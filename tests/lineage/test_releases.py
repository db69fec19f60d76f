"""Releases of earlier versions recorded no folder."""

from pathlib import Path

from ledgers import NAME
from pairs import audited_pairs

from poisonwatch.ledger.records import append_record
from poisonwatch.lineage.releases import list_releases
from poisonwatch.release.release import RELEASE_KIND, write_release


def test_a_release_without_a_folder_is_listed(tmp_path: Path) -> None:
    """Its rows are not known; those of another name are another's."""
    with audited_pairs(tmp_path) as ledger:
        said = {"name": NAME, "counts": {"in": 4, "clean": 3}}
        with ledger.write() as connection:
            append_record(connection, RELEASE_KIND, "a" * 64, {"manifest": "a" * 64}, said, None)
        write_release(ledger, NAME, tmp_path / "out")
        with ledger.read() as connection:
            before, after = list_releases(connection, NAME)
            assert list_releases(connection, "other") == []
    assert (before.folder, before.load()) == (None, None)
    assert before.make_step().words == "3 rows"
    assert after.load() is not None
