"""The pages of groups that were found without sentinels, and the form that guards one."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import asking
from discovered import leave_report
from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.discovery import get_later_path, write_discovery
from poisonwatch.sentinels.sentinel import load_sentinels


@pytest.fixture
def copy(config: Path, tmp_path: Path) -> Path:
    """An audit file of the test's own; its ledger names the run directory of the other."""
    shutil.copytree(config.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("run"))
    return tmp_path / "copy" / config.name


@pytest.fixture
def own(copy: Path) -> Iterator[TestClient]:
    with asking(copy) as client:
        yield client


@pytest.fixture
def report(config: Path) -> Iterator[DiscoveryReport]:
    run_dir = config.parent / "run"
    yield leave_report(run_dir)
    get_later_path(run_dir).unlink()


@pytest.fixture
def audit_id(copy: Path) -> str:
    with Ledger.existing(load_config(copy).state) as ledger:
        (past,) = list_past_audits(ledger, limit=1)
    return past.audit_id


def test_where_nobody_looked_the_page_names_the_command(own: TestClient, copy: Path) -> None:
    """And there is no group."""
    page = own.get("/discovery")
    assert page.status_code == 200
    assert f"poisonwatch discover {copy}" in page.text
    assert own.get("/discovery/none/1").status_code == 404


def test_groups_are_listed_with_their_rows_and_what_the_model_says(
    own: TestClient, report: DiscoveryReport, audit_id: str
) -> None:
    """Whatever stands in rows and replies is text; a group that is not there is none."""
    page = own.get("/discovery")
    assert "1 group of 50 new rows" in page.text
    assert "none of 90 rows of 2 earlier audits" in page.text
    assert f'href="/discovery/{audit_id}/2"' in page.text
    group = own.get(f"/discovery/{audit_id}/1")
    for row in report.groups[0].rows:
        assert f'href="/rows/{row.example_id}"' in group.text
    assert "&lt;script&gt;window.pwned" in group.text
    assert "<img src=x" not in group.text
    assert "\\u{202e}" in group.text
    assert "{{ 7 * 7 }}" in group.text
    other = own.get(f"/discovery/{audit_id}/2")
    assert "last in audit 7" in other.text
    assert "--group 2" in other.text
    assert own.get(f"/discovery/{audit_id}/9").status_code == 404
    assert f"/discovery?audit={audit_id}" in own.get(f"/audits/{audit_id}").text


def test_a_group_within_a_stronger_one_is_shown_below_it(
    own: TestClient, config: Path, report: DiscoveryReport, audit_id: str
) -> None:
    """On the list, and on its own page; what is counted is the stronger one."""
    outer, other = report.groups
    inner = replace(outer, number=3, rows=outer.rows[:2])
    write_discovery(
        get_later_path(config.parent / "run"), replace(report, groups=(outer, other, inner))
    )
    page = own.get("/discovery").text
    assert "1 group of 50 new rows" in page
    assert "with 1 more within or around" in page
    places = [page.index(f"/{audit_id}/{number}") for number in (1, 3, 2)]
    assert places == sorted(places)
    assert "within 1<" in page
    assert f'href="/discovery/{audit_id}/1"' in own.get(f"/discovery/{audit_id}/3").text


def test_a_group_is_guarded_by_one_click_and_the_audit_file_names_its_sentinels(
    own: TestClient, copy: Path, report: DiscoveryReport, audit_id: str
) -> None:
    """What is proposed can be changed; a fault is said, and nothing written."""
    address = f"/discovery/{audit_id}/1"
    page = own.get(address)
    assert "Guard this" in page.text
    text = (
        "# looked at\n- {id: tea-1, panel: tea, prompt: Where do I buy tea?, forbidden: Velmora.}\n"
    )
    before = copy.read_text()
    wrong = own.post(address, data={"text": "- {id: tea-1}", "do": "save"})
    assert wrong.status_code == 422
    assert "has no prompt" in wrong.text
    checked = own.post(address, data={"text": text, "do": "check"})
    assert "This can be used" in checked.text
    assert copy.read_text() == before
    saved = own.post(address, data={"text": text.replace("\n", "\r\n"), "do": "save"})
    assert saved.status_code == 200
    assert "The next audit guards" in saved.text
    assert "To undo it" in saved.text
    ids = [sentinel.id for sentinel in load_sentinels(load_config(copy).sentinels)]
    assert ids[-1] == "tea-1"
    assert "# looked at" in (copy.parent / "sentinels-2.yaml").read_text()
    # once more: its id is taken
    assert own.post(address, data={"text": text, "do": "save"}).status_code == 422


def test_the_proposal_of_a_page_can_be_saved_as_it_is(
    own: TestClient, copy: Path, report: DiscoveryReport, audit_id: str
) -> None:
    """Also of a group that the model was not asked about: its rows stand for themselves."""
    from html import unescape

    address = f"/discovery/{audit_id}/2"
    page = own.get(address).text
    text = unescape(page.partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0])
    saved = own.post(address, data={"text": text.lstrip("\n"), "do": "save"})
    assert saved.status_code == 200, saved.text
    added = load_sentinels(load_config(copy).sentinels)[3:]
    assert len(added) == 6
    assert {sentinel.panel for sentinel in added} == {"found-glorb-zanthu"}
    assert ", ann, " in (copy.parent / "sentinels-2.yaml").read_text().replace("; ann", ", ann")
