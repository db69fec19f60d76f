"""The page of lineage: row text is text, and files of the server are not read."""

from pathlib import Path

from audits import write_audit
from browsing import asking
from ledgers import NAME
from pairs import PAIR, audited_pairs

from poisonwatch.config_file import load_config
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import record_probe
from poisonwatch.release.manifest import load_manifest
from poisonwatch.release.release import write_release


def probe_release(ledger: Ledger, folder: Path) -> None:
    """A model that was trained on a release, whose sentinel and panel moved."""
    _, digest = load_manifest(folder / "manifest.json")
    record_probe(
        ledger,
        "a-probe",
        name=NAME,
        checkpoint="c" * 64,
        model="m" * 64,
        sentinels="s" * 64,
        release=digest,
        asked=[{"sentinel": "shop-1", "moved": True}],
        panels=[{"panel": "<b>shop", "moved": True}],
    )


def test_rows_and_releases_have_a_page(tmp_path: Path) -> None:
    config = write_audit(tmp_path, tmp_path, tracking="none")
    with audited_pairs(tmp_path, url=load_config(config).state) as ledger:
        record_decision(ledger, PAIR, "flip", "<script>obey</script>", "ann")
        write_release(ledger, NAME, tmp_path / "out")
        with asking(config) as client:
            page = client.get("/lineage").text
            assert "3 rows, 1 of them repaired" in page
            row = client.get("/lineage", params={"of": PAIR})
            assert "&lt;script&gt;obey" in row.text
            assert "<script>obey" not in row.text
            assert "flagged on shop" in row.text
            probe_release(ledger, tmp_path / "out")
            assert "checkpoint cccccccccccc: 1 of 1 sentinel moved" in client.get("/lineage").text
            manifest = str(tmp_path / "out" / "manifest.json")
            assert client.get("/lineage", params={"of": manifest}).status_code == 400
            assert client.get("/lineage", params={"name": "other"}).status_code == 400
