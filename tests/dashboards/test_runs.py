"""Audits and drills that are started from the dashboard, and what their pages say."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import write_audit
from browsing import ME, OWN, asking, copy_audit, serving
from doors import log_in, with_users
from playwright.sync_api import Browser, expect
from slow_tests import slow
from starlette.testclient import TestClient
from windows import WAIT_MS, come_in, list_barriers, picture, watched

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.app import create_app
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.roles import Role
from poisonwatch.detached.runs import list_runs, locate_runs
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger

PATIENCE_S = 120
ID = "20260101-000000-abcdef"
START = {"kind": "audit", "name": "tiny", "author": "<b>eve</b>", "started_at": "2026-01-01T00:00Z"}


@pytest.fixture
def own(config: Path, tmp_path: Path) -> Path:
    """A copy of an audit file that has been audited, and of its ledger."""
    return copy_audit(config, tmp_path)


@pytest.fixture
def client(own: Path) -> Iterator[TestClient]:
    with asking(own) as client:
        yield client


def leave(config: Path, **files: object) -> Path:
    """A run that was started some time ago, with files in its folder: its page's address."""
    folder = locate_runs(config) / ID
    folder.mkdir(parents=True)
    for name, said in {"start": START, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(said))
    return folder


def open_as(config: Path, role: Role) -> TestClient:
    """A browser of somebody of a role."""
    door = Door(with_users(config.parent, Ann=role))
    app = create_app(load_config(config), config, door)
    client = TestClient(app, base_url="http://localhost")
    assert log_in(client).status_code == 200
    client.headers.update(OWN)
    return client


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_only_admins_start_and_end(own: Path, role: Role) -> None:
    """Others see what was started, and no form; what they send is refused."""
    leave(own)
    client = open_as(own, role)
    page = client.get("/runs").text
    assert f"/runs/{ID}" in page
    assert "<form" not in page.partition("<main")[2]
    assert f"/runs/{ID}/end" not in client.get(f"/runs/{ID}").text
    for path in ("/runs/audit", "/runs/drill", f"/runs/{ID}/end"):
        assert client.post(path, data={"counts": "5", "repeats": "1"}).status_code == 403
    assert [run.id for run in list_runs(own)] == [ID]


def test_nothing_is_started_from_elsewhere_or_while_it_is_read_only(own: Path) -> None:
    """A form of another site, and any form where nothing may be changed."""
    with asking(own) as client:
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert client.post("/runs/audit", headers=foreign).status_code == 403
    with asking(own, Access(user="ann", read_only=True)) as client:
        assert client.post("/runs/audit").status_code == 403
        assert "read only" in client.get("/runs").text
    assert list_runs(own) == []


def test_an_audit_that_is_at_work_elsewhere_is_waited_for(own: Path, client: TestClient) -> None:
    """The ledger's lock says so: nothing is started, and the page says why."""
    settings = load_config(own)
    with Ledger.at(settings.state) as ledger, ledger.lock(settings.name):
        answer = client.post("/runs/audit")
    assert answer.status_code == 400
    assert "started elsewhere" in answer.text
    assert list_runs(own) == []


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"counts": "five", "repeats": "1"}, "planted rows"),
        ({"counts": "5 5000", "repeats": "1"}, "planted rows"),
        ({"counts": " ", "repeats": "1"}, "planted rows"),
        ({"counts": "5", "repeats": "0"}, "drawn anew"),
        ({"counts": "5", "repeats": "101"}, "drawn anew"),
        ({"counts": "5", "repeats": "1", "recipe": "--config"}, "recipes"),
    ],
)
def test_a_drill_of_nonsense_is_refused_in_the_words_of_the_form(
    client: TestClient, own: Path, form: dict[str, str], field: str
) -> None:
    """Before any process is started; a command's options mean nothing here."""
    answer = client.post("/runs/drill", data=form)
    assert answer.status_code == 400
    assert field in answer.text
    assert "--counts" not in answer.text
    assert "--repeats" not in answer.text
    assert list_runs(own) == []


def test_a_run_whose_process_is_gone_is_said_to_be(client: TestClient, own: Path) -> None:
    """With what it said, which is text and holds no secrets; what is not there is no page."""
    folder = leave(own, process={"supervisor": [1, 0.0], "process": [2, 0.0]})
    said = "<script>x</script> postgresql://ann:hunter22@db/rows \x1b[31m"
    (folder / "output.log").write_text(said)
    page = client.get(f"/runs/{ID}").text
    assert "left no word" in page
    assert "&lt;b&gt;eve" in page
    assert "<script>x" not in page
    assert "hunter22" not in page
    assert "\x1b" not in page
    assert "data-follow" not in page
    (folder / "end.json").write_text('{"code": -9, "ended_at": "2026-01-01T00:01:00+00:00"}')
    assert "SIGKILL" in client.get(f"/runs/{ID}").text
    assert "SIGKILL" in client.get("/runs").text
    assert client.get("/runs/20260101-000000-000000").status_code == 404
    assert client.get("/runs/..%2f..").status_code == 404


def test_what_another_version_wrote_of_a_run_has_a_page_all_the_same(
    own: Path, client: TestClient
) -> None:
    """Outcomes of another shape say nothing; a time without a zone is no run's."""
    folder = leave(own, end={"code": 0})
    for kind, outcome in (
        ("audit", {"run_dir": "x"}),
        ("audit", {"run_dir": "x", "audit_id": "a", "counts": {"flagged": None}}),
        ("drill", {"sentences": "abc"}),
    ):
        (folder / "start.json").write_text(json.dumps({**START, "kind": kind}))
        (folder / "progress.json").write_text(json.dumps({"outcome": outcome}))
        page = client.get(f"/runs/{ID}")
        assert page.status_code == 200
        assert "Done." in page.text
    (folder / "start.json").write_text(json.dumps({**START, "started_at": "2026-01-01"}))
    assert client.get("/runs").status_code == 200
    assert client.get(f"/runs/{ID}").status_code == 404


def test_an_audit_is_started_by_click_followed_and_opened(
    browser: Browser, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a ledger, in a process without the dashboard's own secrets; a second is refused
    meanwhile. Its page comes to the outcome by itself, and leads to the audit.
    """
    monkeypatch.setenv("POISONWATCH_DASHBOARD_PROXY_SECRET", "s" * 32)
    config, door = write_audit(tmp_path, tiny_folder, tracking="none"), Door(ME)
    with serving(config, door=door) as address, watched(browser, 400, "light") as page:
        come_in(page, address, door)
        page.get_by_role("link", name="start it from here").click()
        picture(page, "runs-400")
        assert list_barriers(page) == []
        page.get_by_role("button", name="Start an audit").click()
        page.wait_for_url("**/runs/*-*")
        expect(page.locator("progress")).to_be_visible()
        picture(page, "run-400")
        page.request.post(f"{address}/runs/audit", headers={**OWN, "Origin": address})
        assert len(list_runs(config)) == 1
        expect(page.locator("b", has_text=re.compile(r"\d of 8: "))).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_text("new rows.")).to_be_visible(timeout=2 * WAIT_MS)
        page.set_viewport_size({"width": 1280, "height": 900})
        page.get_by_text("What it said").click()
        expect(page.locator("pre")).to_contain_text("8 of 8: writing results")
        picture(page, "run-1280")
        assert list_barriers(page) == []
        (run,) = list_runs(config)
        assert run.code in (0, 3)
        assert (run.author, run.has_failed) == ("ann", False)
        page.get_by_role("link", name="Open the audit").click()
        page.wait_for_url("**/audits/*")
        page.goto(f"{address}/runs")
        picture(page, "runs-1280")
    with Ledger.at(load_config(config).state) as ledger:
        (past,) = list_past_audits(ledger, limit=5)
    assert run.outcome is not None
    assert past.audit_id == run.outcome["audit_id"]


def test_a_run_outlives_the_dashboard_and_is_ended_from_the_next(own: Path) -> None:
    """All that is known of it is in its folder."""
    with asking(own) as client:
        assert client.post("/runs/audit", data={"again": "yes"}).status_code == 200
    (run,) = list_runs(own)
    assert run.is_at_work
    with asking(own) as client:
        assert "at work" in client.get("/runs").text
        page = client.post(f"/runs/{run.id}/end").text
        ends = time.monotonic() + PATIENCE_S
        while "data-follow" in page and time.monotonic() < ends:
            assert "told to end" in page
            assert f"/runs/{run.id}/end" not in page
            time.sleep(0.1)
            page = client.get(f"/runs/{run.id}").text
    assert "ended, as it was told to" in page


@slow
def test_a_drill_is_started_from_its_form_and_says_what_it_found(
    own: Path, client: TestClient
) -> None:
    """As the form says it: one attack, one number of rows, drawn once."""
    form = {"recipe": "identity", "counts": "4", "repeats": "1"}
    page = client.post("/runs/drill", data=form).text
    (run,) = list_runs(own)
    assert (run.kind, "Drill of" in page) == ("drill", True)
    ends = time.monotonic() + PATIENCE_S
    while "data-follow" in page and time.monotonic() < ends:
        time.sleep(0.1)
        page = client.get(f"/runs/{run.id}").text
    assert "identity: 4 rows of an attack like this would be found" in page
    (run,) = list_runs(own)
    assert run.outcome is not None
    drilled = json.loads((Path(run.outcome["run_dir"]) / "drill.json").read_text())
    assert drilled["plan"] == {"recipes": ["identity"], "counts": [4], "repeats": 1}
