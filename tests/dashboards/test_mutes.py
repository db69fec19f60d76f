"""Mutes and owners on the pages of the queue."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browsing import asking, copy_audit, groups
from starlette.testclient import TestClient
from tampering import verify

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import list_mutes

SOON = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
WHY = "ours <b>really</b>"


@pytest.fixture(scope="module")
def own(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the audit file and its ledger, with an owner of all rows."""
    alerts = [{"url": "json://one", "owner": "<i>shop</i> team"}]
    return copy_audit(config, tmp_path_factory.mktemp("muted"), alerts=alerts)


@pytest.fixture
def client(own: Path) -> Iterator[TestClient]:
    with asking(own) as client:
        yield client


def read_mutes(own: Path) -> list[tuple[str, str, str, bool]]:
    config = load_config(own)
    with Ledger.at(config.state) as ledger, ledger.read() as connection:
        found = list_mutes(connection, config.name)
    return [(mute.on, mute.author, mute.owner, mute.unmuted_at is None) for mute in found]


def test_a_group_is_muted_with_a_reason_and_a_day_and_unmuted(
    client: TestClient, own: Path
) -> None:
    """In the chain, by the name of who sits there; told on the group's page and in the list."""
    address = groups(client)[0]
    page = client.get(address).text
    assert "owner <bdi>&lt;i&gt;shop&lt;/i&gt; team</bdi>" in page
    assert 'data-label="owner"><bdi>&lt;i&gt;shop' in client.get("/triage").text
    assert "muted until" not in page
    form = {"what": "group", "until": SOON, "why": WHY, "owner": ""}
    shown = client.post(f"{address}/mute", data=form).text
    assert "by <bdi>ann</bdi>: <bdi>ours &lt;b&gt;really&lt;/b&gt;</bdi>" in shown
    assert "muted until" in client.get("/triage").text
    assert read_mutes(own) == [(address.removeprefix("/triage/"), "ann", "ann", True)]
    number = re.findall(r'name="mute" value="([0-9]+)"', shown)[0]
    assert "muted until" not in client.post(f"{address}/unmute", data={"mute": number}).text
    assert read_mutes(own)[0][-1] is False
    with Ledger.at(load_config(own).state) as ledger:
        assert verify(ledger).differences == []


def test_a_panel_is_muted_from_the_page_of_a_group(client: TestClient, own: Path) -> None:
    """By its name, with an owner."""
    address = groups(client)[0]
    panel = re.findall(r'name="panel" value="([^"]+)"', client.get(address).text)[0]
    form = {"what": "panel", "panel": panel, "until": SOON, "why": WHY, "owner": "eve"}
    assert "for <bdi>eve</bdi>" in client.post(f"{address}/mute", data=form).text
    assert read_mutes(own)[-1] == (f"panel:{panel}", "ann", "eve", True)


@pytest.mark.parametrize(
    "wrong", [{"until": "2000-01-01"}, {"until": ""}, {"why": " "}, {"until": "9999-01-01"}]
)
def test_a_mute_without_reason_or_end_is_refused(
    client: TestClient, own: Path, wrong: dict[str, str]
) -> None:
    """On a page that says why, and nothing is recorded."""
    before = read_mutes(own)
    form = {"what": "group", "until": SOON, "why": WHY, **wrong}
    assert client.post(f"{groups(client)[0]}/mute", data=form).status_code == 400
    assert client.post(f"{groups(client)[0]}/unmute", data={"mute": "x"}).status_code == 400
    assert read_mutes(own) == before


def test_whoever_may_not_decide_may_not_mute(own: Path) -> None:
    """A viewer sees what is muted, and no form."""
    before = read_mutes(own)
    with asking(own, Access(user="vera", read_only=True)) as client:
        address = groups(client)[0]
        assert f"{address}/mute" not in client.get(address).text
        form = {"what": "group", "until": SOON, "why": WHY}
        assert client.post(f"{address}/mute", data=form).status_code == 403
    assert read_mutes(own) == before
