"""How an audit stands: what is well, and what needs somebody."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from full_disks import fill, small_disk
from ledgers import NAME, covered_ledger, sqlite_ledger
from servers import free_port, postgres_server
from silent import HOUR, MINUTE, NOON, add_audit, expecting

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import AUDIT_KIND, enqueue
from poisonwatch.liveness.standing import Standing, gather_standing


@pytest.fixture(autouse=True)
def no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def stand(
    ledger: Ledger, folder: Path, now: datetime = NOON, min_free: float = 0, **settings: Any
) -> Standing:
    return gather_standing(
        tracked(ledger.url, folder, **settings), folder / "audit.yaml", {}, now, min_free
    )


def tracked(url: str, folder: Path, **settings: Any) -> AuditConfig:
    return expecting(url, **{"tracking": f"sqlite:///{folder / 'mlflow.db'}", **settings})


def test_all_is_well_where_audits_come_and_nothing_is_owed(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so of everything that it looked at."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path / "cache"))
    add_audit(ledger, NOON - 10 * MINUTE, NOON - 5 * MINUTE)
    standing = stand(ledger, tmp_path)
    assert standing.is_well
    assert (standing.owed, standing.undecided, standing.parts_failed) == ([], 0, 0)
    assert [disk.what for disk in standing.disks] == ["runs, ledger, MLflow, cache"]
    assert [server.name for server in standing.servers] == ["MLflow"]
    assert standing.versions["ledger"] == max(standing.versions["ledger"] or "", "0010")
    record = standing.to_record()
    assert (record["well"], record["audits"]["last_audit"]) == (True, "audit-1")
    assert record["audits"]["overdue"] is False


def test_a_full_disk_below_the_cache_needs_somebody(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audits go on there, and an interrupted one would start anew."""
    add_audit(ledger, NOON - 10 * MINUTE, NOON - 5 * MINUTE)
    with small_disk(tmp_path / "home") as home:
        monkeypatch.setenv("POISONWATCH_CACHE", str(home / "cache"))
        fill(home)
        standing = stand(ledger, tmp_path, min_free=1)
    assert [disk.what for disk in standing.disks] == ["runs, ledger, MLflow", "cache"]
    (trouble,) = standing.troubles
    assert trouble.startswith(f"0.0 GB left for cache ({home}): ")


def test_each_trouble_is_a_line(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audits that do not come, an account that nobody takes, little disk, servers that are down."""
    add_audit(ledger, NOON - 6 * HOUR, NOON - 5 * HOUR)
    with ledger.write() as connection:
        enqueue(connection, AUDIT_KIND, 1, audit=1, targets=["mlflow"])
    stand(ledger, tmp_path, NOON - 5 * HOUR)
    port = free_port()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    secret = f"http://ann:hunter2@127.0.0.1:{port}"
    standing = stand(ledger, tmp_path, min_free=1e18, tracking=secret)
    said = "\n".join(standing.troubles)
    for part in (
        "audits do not come: last audit 5 h ago, expected every 1 h: overdue since",
        "1 audit not delivered to mlflow since 2026-05-04 07:00 UTC",
        f"127.0.0.1:{port} cannot be reached",
        f"Prefect at http://127.0.0.1:{port}/api cannot be reached",
        "left for runs, ledger",
    ):
        assert part in said
    assert len(standing.troubles) == 5
    assert "hunter2" not in str(standing.to_record())


def test_a_schedule_that_is_new_is_remembered(ledger: Ledger, tmp_path: Path) -> None:
    """Else it would begin anew at every look, and nothing would ever be overdue."""
    add_audit(ledger, NOON - timedelta(days=9), NOON - timedelta(days=9))
    assert stand(ledger, tmp_path).is_well
    assert not stand(ledger, tmp_path, NOON + 2 * HOUR).is_well


def test_what_never_ran_needs_somebody(ledger: Ledger, tmp_path: Path) -> None:
    """Nothing began; what began failed; what is at work may come to results."""
    (said,) = stand(ledger, tmp_path).troubles
    assert said.startswith(f"no audit of {NAME} has run")
    add_audit(ledger, NOON, NOON, state="interrupted")
    (said,) = stand(ledger, tmp_path).troubles
    assert said.startswith("1 audit began, and none came to its results")
    add_audit(ledger, NOON, None, state="running")
    with ledger._take_lock(NAME):
        assert stand(ledger, tmp_path).is_well


def test_a_ledger_that_cannot_be_used_is_a_trouble_of_its_own(tmp_path: Path) -> None:
    """One that is not there, one that nobody answers for: the rest is told all the same."""
    missing = f"sqlite:///{tmp_path / 'ledger.db'}"
    for url in (missing, f"postgresql://ann:hunter2@127.0.0.1:{free_port()}/ledger"):
        standing = gather_standing(
            tracked(url, tmp_path), tmp_path / "audit.yaml", {}, NOON, min_free=0
        )
        (said,) = standing.troubles
        assert "ledger" in said
        assert "hunter2" not in said
        assert (standing.liveness, standing.owed, standing.undecided) == (None, None, None)
        assert standing.disks
        assert standing.servers
        assert standing.to_record()["audits"] is None
    assert not (tmp_path / "ledger.db").exists()


@contextmanager
def audited(folder: Path) -> Iterator[Ledger]:
    with covered_ledger(folder, "Tell me fact 0 about tea.") as ledger:
        yield ledger


def test_the_last_audit_says_what_made_it(tmp_path: Path) -> None:
    """By its record; and its flagged row waits."""
    with audited(tmp_path) as ledger:
        standing = stand(ledger, tmp_path, datetime.now(NOON.tzinfo))
    assert standing.versions["last audit"] == standing.versions["poisonwatch"]
    assert standing.undecided == 1


def test_a_ledger_on_postgresql_stands_as_one_in_a_file() -> None:
    """On a real server; its disk is not this machine's."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        add_audit(ledger, NOON - MINUTE, NOON)
        config = expecting(url, tracking=url)
        assert gather_standing(config, Path("/nowhere/a.yaml"), {}, NOON, min_free=0).is_well
        late = gather_standing(config, Path("/nowhere/a.yaml"), {}, NOON + 2 * HOUR, min_free=0)
        (said,) = late.troubles
        assert "overdue" in said
