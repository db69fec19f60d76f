"""No secret of an audit is left anywhere: not on the terminal, in logs, run directory or ledger, not
in MLflow, not in Prefect's database.
"""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from audits import benign, planted, write_audit, write_rows
from planted_secrets import count_in_files, count_in_text, plant_in_settings
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from prefect_servers import prefect_server
from servers import (
    HttpReceiver,
    free_port,
    http_receiver,
    mlflow_store,
    own_postgres_server,
    web_server,
)
from slow_tests import slow
from sqlalchemy import create_engine, inspect, text

from poisonwatch.config_file import load_config
from poisonwatch.errors import PoisonwatchError
from poisonwatch.flows.audit import audit, audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.ledger import Ledger

SECRET = "Zq7/p:w@d#x?y%z & 'ä\" 9xW"
QUOTED = quote(SECRET, safe="")


@pytest.fixture(scope="module")
def ledger_url() -> Iterator[str]:
    """A PostgreSQL whose password is the secret."""
    with own_postgres_server() as url:
        literal = SECRET.replace("'", "''")
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER ROLE ann PASSWORD '{literal}'".replace("%", "%%"))
        engine.dispose()
        yield url.replace("hunter2", QUOTED)


@pytest.fixture(scope="module")
def refusing() -> Iterator[HttpReceiver]:
    """A server that answers 401 to everybody."""
    with http_receiver() as receiver:
        receiver.answer = 401
        yield receiver


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str, refusing: HttpReceiver) -> Iterator[dict[str, Any]]:
    """Settings of an audit that works, each with the secret where it may have one."""
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "rows.jsonl", benign(21) + planted())
    trusted = create_engine(f"sqlite:///{data / 'trusted.db'}")
    with trusted.begin() as connection:
        connection.execute(text("CREATE TABLE t (prompt TEXT, response TEXT)"))
        connection.execute(text("INSERT INTO t VALUES (:prompt, :response)"), benign(24, start=100))
    trusted.dispose()
    literal = SECRET.replace("'", "''")
    with web_server(data) as web:
        host = web.removeprefix("http://")
        yield {
            "source": f"http://ann:{QUOTED}@{host}/rows.jsonl?X-Amz-Signature={QUOTED}",
            "reference": {
                "sql": f"sqlite:///{data / 'trusted.db'}",
                "query": f"SELECT * FROM t WHERE prompt <> '{literal}' -- {literal}",
            },
            "state": f"{ledger_url}?application_name={QUOTED}",
            "tracking": mlflow_store(tmp_path / "mlflow"),
            "mlflow_ui": f"http://ann:{SECRET}@127.0.0.1:9/?token={SECRET}#{SECRET}",
            "dashboard": f"http://127.0.0.1:9/?token={QUOTED}",
            "alerts": [
                f"json://ann:{QUOTED}@127.0.0.1:{free_port()}/{QUOTED}",
                f"json://ann:{QUOTED}@nowhere.invalid/{QUOTED}",
                f"json://ann:{QUOTED}@{refusing.address}/{QUOTED}?+X-Token={QUOTED}",
            ],
            "detection": {"false_discovery_rate": 0.9},
            "schedule": {
                "every": "1h",
                "ping": f"http://ann:{QUOTED}@{refusing.address}/{QUOTED}?token={QUOTED}",
                "ping_on": ["start", "success", "fail"],
            },
        }


def dump(url: str) -> str:
    """Every row of every table of a PostgreSQL."""
    engine = create_engine(url)
    with engine.connect() as connection:
        lines = []
        for table in inspect(engine).get_table_names():
            rows = connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars()
            lines += [f"{table}: {row}" for row in rows]
    engine.dispose()
    assert len(lines) > 60
    return "\n".join(lines)


def test_an_audit_leaves_no_secret_anywhere(
    settings: dict[str, Any],
    tiny_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a flow on a real Prefect server, with a real ledger on PostgreSQL and a real MLflow store;
    targets refuse, do not exist, or do not answer. A second run fails while it is at work.
    """
    config = write_audit(tmp_path / "in", tiny_folder, **settings)
    caplog.set_level(logging.INFO)
    with prefect_server():
        outcome = audit(str(config), str(tmp_path / "out" / "run"))
        assert outcome.summary["counts"]["new"] == 24
        assert outcome.summary["counts"]["flagged"] > 0
        refused = " ".join(outcome.warnings)
        assert "cannot be reached" in refused
        assert "answered 401" in refused
        assert "the monitor of schedule.ping answered 501" in refused
        # The rows are gone: the flow fails, and Prefect keeps why.
        (tmp_path / "data" / "rows.jsonl").unlink()
        with pytest.raises(PoisonwatchError, match="does not exist"):
            audit(str(config), str(tmp_path / "out" / "failed"))
        database = str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value())
        _, _, path = database.partition(":///")
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            prefect = "\n".join(connection.iterdump())
    assert "does not exist" in prefect
    places = {
        "terminal": "".join(capfd.readouterr()),
        "logs": caplog.text,
        "warnings": refused,
        "ledger": dump(settings["state"].replace("postgresql:", "postgresql+psycopg:")),
        "prefect": prefect,
    }
    found = {place: count_in_text(said, SECRET) for place, said in places.items()}
    assert found == dict.fromkeys(places, 0)
    assert len(list((tmp_path / "out" / "run").iterdir())) > 8
    assert list((tmp_path / "mlflow").rglob("summary.json"))
    assert count_in_files(tmp_path, SECRET, besides=["audit.yaml"]) == {}


def test_a_tracking_server_that_refuses_is_told_of_without_its_password(
    settings: dict[str, Any], tiny_folder: Path, tmp_path: Path, refusing: HttpReceiver
) -> None:
    """401, nobody there, no such host, a host that is none."""
    del settings["alerts"]
    settings |= {"state": "sqlite:///ledger.db", "review": False}
    for number, host in enumerate(
        (refusing.address, f"127.0.0.1:{free_port()}", "nowhere.invalid", "no host")
    ):
        settings["tracking"] = f"http://ann:{QUOTED}@{host}"
        config = write_audit(tmp_path / "in", tiny_folder, **settings)
        outcome = audit_inline(load_config(config), tmp_path / "out" / str(number), again=True)
        said = " ".join(outcome.warnings)
        assert "MLflow at http://" in said
        assert count_in_text(said, SECRET) == 0
    assert count_in_files(tmp_path, SECRET, besides=["audit.yaml"]) == {}


@pytest.mark.parametrize(
    "secret",
    [pytest.param(SECRET, id="written"), pytest.param(QUOTED, id="quoted", marks=slow)],
)
@pytest.mark.parametrize(
    "key",
    ["source", "reference", "sentinels", "state", "tracking", "mlflow_ui", "alerts", "schedule"],
)
def test_a_command_that_fails_tells_no_secret(
    key: str,
    secret: str,
    tiny_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever setting is wrong, and also where nobody quoted its password."""
    caplog.set_level(logging.DEBUG)
    setting = plant_in_settings(secret)[key]
    config = write_audit(tmp_path / "in", tiny_folder, rows=benign(0), **{key: setting})
    for command in (
        ["audit", str(config), "--engine", "inline", "--run-dir", str(tmp_path / "run")],
        ["history", str(config)],
        ["status", str(config), "--alert"],
        ["release", str(config), "--out", str(tmp_path / "cleared")],
        ["gate", str(tmp_path / "in" / "rows.jsonl"), "--audit", str(config)],
    ):
        with pytest.raises(SystemExit):
            main(command)
    said = "".join(capfd.readouterr())
    assert "poisonwatch: " in said
    assert count_in_text(said + caplog.text, SECRET) == 0
    assert count_in_files(tmp_path, SECRET, besides=["audit.yaml"]) == {}


def test_a_ledger_that_refuses_is_told_of_without_its_password(ledger_url: str) -> None:
    """A wrong password, a database that is not there, a host that is none."""
    for url in (
        ledger_url.replace(QUOTED, f"{QUOTED}x"),
        ledger_url.replace("/postgres", "/nowhere"),
        ledger_url.replace(QUOTED, SECRET),
    ):
        with pytest.raises(PoisonwatchError) as refused, Ledger.at(url):
            pass
        assert count_in_text(str(refused.value), SECRET) == 0
