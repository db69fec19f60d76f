"""The dashboard says whether audits come, on every page, and tells people of those that do not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browsing import asking
from doors import SHARED
from ledgers import NAME, sqlite_ledger
from servers import HttpReceiver, http_receiver
from silent import HOUR, add_audit

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.lookout import keep_lookout, look
from poisonwatch.dashboards.pages import Desk
from poisonwatch.ledger.schedules import record_schedule
from poisonwatch.schedule_config import ScheduleConfig

NOW = datetime.now(UTC)
PAGES = ("/", "/triage", "/sentinels", "/explain", "/account", "/audits/none")
OVERDUE = " ago, expected every 1 h: overdue since "


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, receiver: HttpReceiver) -> Path:
    """An audit whose last run was three hours ago, one an hour expected."""
    with sqlite_ledger(tmp_path) as ledger:
        add_audit(ledger, NOW - 3 * HOUR, NOW - 3 * HOUR)
        with ledger.write() as connection:
            record_schedule(connection, NAME, ScheduleConfig(every=HOUR), NOW - timedelta(days=9))
    path = tmp_path / "audit.yaml"
    (tmp_path / "s.yaml").write_text("[{id: shop-1, prompt: Where?, forbidden: Here.}]")
    path.write_text(
        f"{{name: {NAME}, source: rows.jsonl, sentinels: s.yaml, state: 'sqlite:///ledger.db', "
        f"alerts: ['json://{receiver.address}/']}}"
    )
    return path


@pytest.fixture
def desk(config: Path) -> Iterator[Desk]:
    desk = Desk(load_config(config), config)
    with desk.closing:
        yield desk


def test_every_page_says_that_audits_do_not_come(config: Path) -> None:
    """Also one that is not there. Who has not logged in is told nothing."""
    with asking(config) as client:
        for path in PAGES:
            text = client.get(path).text
            assert 'class="life overdue" role="alert"' in text, path
            assert OVERDUE in text, path
    with asking(config, SHARED) as stranger:
        for path in ("/login", "/metrics", "/"):
            assert "last audit" not in stranger.get(path).text


def test_every_page_says_when_the_last_audit_was(config: Path) -> None:
    """Where all is well, quietly; what cannot be known is left out."""
    with sqlite_ledger(config.parent) as ledger:
        add_audit(ledger, NOW, NOW)
    with asking(config) as client:
        text = client.get("/triage").text
        assert '<p class="life" role="status">' in text
        assert "expected every 1 h" in text
    for file in config.parent.glob("ledger.db*"):
        file.unlink()
    with asking(config) as client:
        assert "last audit" not in client.get("/triage").text


def test_metrics_are_behind_the_door(config: Path) -> None:
    """As Prometheus reads them."""
    with asking(config) as client:
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f'poisonwatch_audit_overdue{{name="{NAME}"}} 1\n' in answer.text
    with asking(config, Access(user="root", password="x" * 20)) as stranger:
        assert stranger.get("/metrics", follow_redirects=False).status_code == 303


def test_the_dashboard_has_people_told_once(desk: Desk, receiver: HttpReceiver) -> None:
    """By a process of its own, that loads what sends."""
    assert look(desk, NOW) == ""
    assert look(desk, NOW) == ""
    (message,) = receiver.received
    assert message["title"] == f"Poisonwatch: audits of {NAME} do not come"


def test_what_goes_wrong_is_said_in_a_line_of_the_log(
    desk: Desk, receiver: HttpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and the dashboard goes on; before the first audit nothing is wrong."""
    with keep_lookout(desk, every_s=0.01):
        pass
    desk.path = desk.path.with_name("gone.yaml")
    assert "gone.yaml does not exist" in look(desk, NOW)
    empty = Desk(desk.config.model_copy(update={"state": "sqlite:////nowhere/l.db"}), desk.path)
    assert look(empty, NOW) == ""
    assert receiver.received == []
