"""`poisonwatch provenance`, on a ledger that no model is needed for."""

from pathlib import Path

import pytest
from audits import write_audit
from ledgers import NAME
from pairs import audited_pairs

from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main
from poisonwatch.release.release import write_release


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_documents_lie_beside_a_release_and_never_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trainer would read them as rows there."""
    config = write_audit(tmp_path, tmp_path, tracking="none")
    with audited_pairs(tmp_path, url=load_config(config).state) as ledger:
        write_release(ledger, NAME, tmp_path / "out")
    ask = ["provenance", str(config), str(tmp_path / "out" / "manifest.json"), "--out"]
    assert run(*ask, str(tmp_path / "out" / "more")) == 2
    assert "in the release's folder" in capsys.readouterr().err
    assert run(*ask, str(tmp_path / "provenance")) == 0
    assert "croissant.json" in capsys.readouterr().out
