"""An upgrade of ledger and MLflow store, and what a person is told to do."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from killing import kill_before_each_write
from ledgers import NAME
from older_ledgers import make_older_ledger
from servers import mlflow_store

from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main
from poisonwatch.flows.upgrade import carry_out, list_missing_extras, plan_upgrade
from poisonwatch.ledger.database import VERSION_TABLE
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger

AUDIT = [
    "INSERT INTO versions (version, model, sentinels) VALUES (1, 'm', 's')",
    "INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir) "
    f"VALUES (1, 'one', '{NAME}', 1, 'finished', '', '')",
]
SETTINGS = {
    "name": NAME,
    "source": "rows.jsonl",
    "sentinels": "s.yaml",
    "state": "sqlite:///ledger.db",
    "decision": {"false_discovery_rate": 0.2},
}


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An audit file whose ledger is of revision 0008, and its MLflow store of this MLflow."""
    make_older_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", "0008", AUDIT)
    settings = SETTINGS | {"tracking": mlflow_store(tmp_path)}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "audit.yaml"


def test_old_keys_are_named_and_cost_no_exit_code(path: Path) -> None:
    """They are read still; the notes say what they are called now."""
    with Ledger.at(load_config(path).state):
        found = plan_upgrade(load_config(path), path)
    assert any("`decision` is called `detection`" in note for note in found.notes)
    assert found.is_done


def test_nothing_is_migrated_while_an_audit_is_at_work(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and its name; the ledger stays of its revision, and no copy is made."""
    from poisonwatch.ledger.locks import lock_file

    with lock_file(path.parent / "ledger.db", NAME, wait=False, on_wait=lambda: None) as is_taken:
        assert is_taken
        assert run("upgrade", str(path)) == 1
    assert NAME in capsys.readouterr().err
    assert not list(path.parent.glob("*.before-*"))
    assert run("upgrade", str(path), "--check", "--json") == 1
    assert json.loads(capsys.readouterr().out)["revision"] == "0008"


def test_an_upgrade_that_is_killed_leaves_whole_copies_and_is_done_by_the_next(
    tmp_path: Path,
) -> None:
    """Before any of its writes: the ledger is of the one revision or of the other."""
    site = tmp_path / "site"
    site.mkdir()
    make_older_ledger(f"sqlite:///{site / 'ledger.db'}", "0008", AUDIT)
    (site / "audit.yaml").write_text(yaml.safe_dump(SETTINGS | {"tracking": None}))

    def upgrade() -> None:
        config = load_config(site / "audit.yaml")
        carry_out(config, plan_upgrade(config, site / "audit.yaml"))

    killed = 0
    for number in kill_before_each_write(site, upgrade):
        killed += 1
        upgrade()
        assert list(site.glob("*.part")) == [], number
        copies = sorted(site.glob("*.before-*"))
        assert copies[0].name == "ledger.db.before-0008"
        for copy in copies:
            with contextlib.closing(sqlite3.connect(copy)) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert database.execute("SELECT audit_id FROM audits").fetchall() == [("one",)]
                assert database.execute("SELECT * FROM alembic_version").fetchall() == [("0008",)]
        with Ledger.existing(load_config(site / "audit.yaml").state) as ledger:
            assert [past.audit_id for past in list_past_audits(ledger)] == ["one"]
    assert killed >= 5


def test_a_store_of_a_newer_mlflow_needs_a_person(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger is upgraded, the store left alone, and the exit code says so."""
    store = path.parent / "mlflow.db"
    with sqlite3.connect(store) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    database.close()
    before = store.read_bytes()
    assert run("upgrade", str(path)) == 1
    told = capsys.readouterr().out
    assert "newer MLflow" in told
    assert [copy.name for copy in path.parent.glob("*.before-*")] == ["ledger.db.before-0008"]
    assert store.read_bytes() == before


def test_an_extra_that_a_setting_needs_is_named_where_it_is_missing(path: Path) -> None:
    """Of what is set alone."""
    needs_all = yaml.safe_load(path.read_text()) | {
        "source": "s3://bucket/rows.jsonl",
        "reference": "gs://bucket/rows.jsonl",
        "compute": "ray",
        "validation": {"languages": {"en": 0.9}},
    }
    plain = load_config(path)
    path.write_text(yaml.safe_dump(needs_all))
    config = load_config(path)
    missing = dict(list_missing_extras(config, lambda package: False))
    assert set(missing) == {"s3", "gcs", "ray", "languages"}
    assert list(list_missing_extras(plain, lambda package: False)) == []
    assert list(list_missing_extras(config, lambda package: True)) == []


def test_a_downgrade_is_refused_in_words_and_with_exit_code_2(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `upgrade` as by any command."""
    with Ledger.at(load_config(path).state) as ledger, ledger.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for arguments in (
        ["upgrade", str(path), "--check"],
        ["upgrade", str(path)],
        ["history", str(path)],
    ):
        assert run(*arguments) == 2
        assert "newer version of Poisonwatch" in capsys.readouterr().err
