"""The ledger knows what an audit wrote: a file and its checksum cannot be changed together."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import write_audit
from browsing import asking
from servers import mlflow_store
from tracking import owe

from poisonwatch.config_file import load_config
from poisonwatch.errors import RunError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.integrations.mlflow.owed import upload_owed
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.checksums import compute_seal, list_differences, write_checksums
from poisonwatch.run_directory.seals import find_own_seal, find_seal

LAX = {"detection": {"false_discovery_rate": 0.9}}  # something is flagged on random weights


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The folder of an audit file whose audit is done."""
    folder = tmp_path_factory.mktemp("sealed")
    config = write_audit(folder, tiny_folder, tracking=mlflow_store(folder), **LAX)
    assert audit_inline(load_config(config), folder / "run").warnings == []
    return folder


@pytest.fixture
def forged(audited: Path) -> Iterator[Path]:
    """The same while its scores are others, with checksums to match."""
    run_dir = audited / "run"
    shutil.copytree(run_dir, audited / "whole")
    (run_dir / "scores.parquet").write_bytes((run_dir / "trusted.parquet").read_bytes())
    write_checksums(run_dir)
    yield audited
    shutil.rmtree(run_dir)
    (audited / "whole").rename(run_dir)


def test_the_seal_is_on_record(audited: Path) -> None:
    """By the ledger, and by the settings that lie in the run directory."""
    config = load_config(audited / "audit.yaml")
    with Ledger.at(config.state) as ledger:
        (past,) = list_past_audits(ledger)
        seal = find_seal(ledger, past.audit_id)
        assert seal is not None
        assert seal == compute_seal(past.run_dir)
        assert find_seal(ledger, "another") is None
    own = load_config(audited / "run" / "config.yaml")
    assert find_own_seal(own) == seal
    elsewhere = own.model_copy(update={"state": f"sqlite:///{audited / 'nowhere.db'}"})
    assert find_own_seal(elsewhere) is None
    assert find_own_seal(config) is None
    assert not (audited / "nowhere.db").exists()


def test_a_forged_run_directory_is_whole_but_for_the_ledger(forged: Path) -> None:
    """It lists no difference of its own."""
    with Ledger.at(load_config(forged / "audit.yaml").state) as ledger:
        (past,) = list_past_audits(ledger)
        assert list_differences(past.run_dir) == []
        (difference,) = list_differences(past.run_dir, find_seal(ledger, past.audit_id))
    assert difference.name == "SHA256SUMS"


def test_a_forged_run_directory_explains_nothing(
    forged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(forged / "run"), "--prompt", "Q?", "--response", "Buy."])
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert f"SHA256SUMS of {forged / 'run'} is not what the audit wrote" in shown.err
    assert shown.out == ""


def test_a_forged_run_directory_is_not_uploaded(forged: Path) -> None:
    """The audit stays owed."""
    config = load_config(forged / "audit.yaml")
    with Ledger.at(config.state) as ledger:
        owe(ledger)
        with pytest.raises(RunError, match=r"SHA256SUMS of .*run is not what the audit wrote"):
            upload_owed(ledger, config)


def test_pages_show_nothing_of_a_forged_run_directory(forged: Path) -> None:
    """They say why; the report is not sent, and no question is answered."""
    said = f"SHA256SUMS of {forged / 'run'} is not what the audit wrote"
    with Ledger.at(load_config(forged / "audit.yaml").state) as ledger:
        (past,) = list_past_audits(ledger)
    with asking(forged / "audit.yaml") as client:
        group = client.get(f"/triage/{past.audit_id}/1")
        assert group.status_code == 200
        assert 'name="verdict"' in group.text
        assert "coefficient.png" not in group.text
        for page in (
            group,
            client.get(f"/audits/{past.audit_id}"),
            client.get("/sentinels"),
            client.get(f"/audits/{past.audit_id}/report"),
            client.get(f"/triage/{past.audit_id}/coefficient.png?row=0&sentinel=shop-1"),
        ):
            assert said in page.text
        asked = {"audit": past.audit_id, "prompt": "Q?", "response": "Buy."}
        answer = client.post("/explain", data=asked)
        while "http-equiv" in answer.text:
            answer = client.get(answer.url.path)
        assert said in answer.text
