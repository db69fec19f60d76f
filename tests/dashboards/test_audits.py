"""The overview of past audits, and the page of each."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from audits import write_audit
from browsing import ME, asking, audit_page, flags, groups
from ledgers import NAME
from prunable import leave, leave_line
from silent import NOON, add_audit
from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.audits import DOCUMENT_POLICY
from poisonwatch.ledger import overview
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probe_looks import FailedProbe, record_look
from poisonwatch.ledger.probes import record_probe
from poisonwatch.ledger.records import append_record


def test_before_the_first_audit_every_page_says_how_to_run_it(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Nothing is written by looking; after the audit the same dashboard shows it."""
    config = write_audit(tmp_path, tiny_folder)
    with asking(config) as client:
        for path in ("/", "/triage", "/sentinels", "/release", "/explain", "/trend.png"):
            assert f"poisonwatch audit {config}" in client.get(path).text
        assert not (tmp_path / "poisonwatch.db").exists()
        with Ledger.at(load_config(config).state):
            assert "of 0" not in client.get("/").text
            assert client.get("/").status_code == 200


def test_the_overview_counts_what_the_audit_counted(client: TestClient, config: Path) -> None:
    """New rows and flags of the audit; a filter that fits nothing leaves nothing, and one that is
    none is refused.
    """
    page = client.get("/").text
    assert f"<dt>rows flagged</dt><dd>{len(flags(config))}</dd>" in page
    assert (
        f"<dt>rows audited</dt><dd>{json.loads((config.parent / 'run' / 'summary.json').read_text())['counts']['new']}</dd>"
        in page
    )
    assert "<dt>audits</dt><dd>0</dd>" in client.get("/?until=1999-01-01").text
    assert (
        "<dt>audits</dt><dd>1</dd>"
        in client.get("/?name=tiny&source=rows.jsonl&since=1999-01-01").text
    )
    with Ledger.at(
        load_config(config).state
    ) as ledger:  # the picture's audits are named as the table's are
        (listed,), _ = overview.list_audits(ledger, overview.AuditFilter())
        (point,) = overview.list_trend_points(ledger, overview.AuditFilter())
        assert point.created == listed.past.started_at
    for wrong in (
        "/?since=yesterday",
        "/?severity=worst",
        "/?page=0",
        "/?page=x",
        f"/triage?page=00000001{'9' * 30}",
        "/triage?state=odd",
    ):
        assert client.get(wrong).status_code == 400


def test_an_audit_says_what_was_not_asked(client: TestClient, config: Path) -> None:
    """As its summary does, with a link to each row that is like a flagged one."""
    coverage = json.loads((config.parent / "run" / "summary.json").read_text())["coverage"]
    page = client.get(audit_page(client)).text
    assert "What was not asked" in page
    for panel in coverage["guarded"]:
        assert panel in page
    assert ", ".join(coverage["packs_not_asked"]) in page
    for near in coverage["near_copies"]["shown"]:
        assert f'href="/rows/{near["example_id"]}"' in page


def test_audits_without_new_rows_are_one_line_that_opens(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leads to the page of each, as far as there is room, and to a list of all."""
    config = write_audit(tmp_path, tiny_folder)
    monkeypatch.setattr("poisonwatch.dashboards.audits.LINES_PER_PAGE", 3)
    with Ledger.at(load_config(config).state) as ledger:
        leave(ledger, tmp_path, "with-rows")
        for number in range(5):
            leave_line(ledger, tmp_path, f"{number:08x}")
        leave_line(ledger, tmp_path, "alone", name="another")
        leave(ledger, tmp_path, "newest")
    with asking(config) as client:
        page = client.get("/?name=tiny").text
        assert "<dt>audits</dt><dd>7</dd>" in page
        assert "1 to 3 of 3 lines" in page
        assert "<summary>5 audits without new rows, " in page
        for id in ("newest", "00000004", "00000002", "with-rows"):
            assert f'href="/audits/{id}"' in page
        assert "2 earlier ones" in page
        assert 'href="/audits/00000001"' not in page
        every = client.get("/?each=yes&name=tiny&page=2").text
        assert "4 to 6 of 7 audits" in every
        assert 'href="/audits/00000001"' in every
        assert 'href="/?name=tiny"' in every
        # of several names, it names none
        assert "<summary>6 audits without new rows, " in client.get("/").text


def test_an_audit_s_page_leads_to_its_report_and_back(client: TestClient, config: Path) -> None:
    """The report is sent as it is, under a policy that lets nothing run; nothing else of the run
    directory can be asked for.
    """
    page = audit_page(client)
    assert f"{page}/report" in client.get(page).text
    report = client.get(f"{page}/report")
    assert report.content == (config.parent / "run" / "report.html").read_bytes()
    assert report.headers["Content-Security-Policy"] == DOCUMENT_POLICY
    assert re.search(f'{page}/plots/[^"]+', client.get(page).text)
    for path in (
        "/plots/..%2F..%2Faudit.yaml",
        "/plots/%2e%2e/summary.json",
        "/summary.json",
        "/config.yaml",
    ):
        assert client.get(page + path).status_code == 404
    assert client.get("/static/app.py").status_code == 404
    assert client.get("/static/..%2Fapp.py").status_code == 404


def test_an_audit_s_page_says_how_its_rows_were_read(client: TestClient) -> None:
    """As the summary of the run does."""
    text = client.get(audit_page(client)).text
    facts = text.split("<h2>How rows were read</h2>")[1].split("</section>")[0]
    assert "<dt>read as</dt><dd>prompt: prompt and response" in facts


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/?page=7", 1),
        ("/triage?state=all&page=999999999", 1),
        ("{audit}?page=7", 1),
        ("{group}?page=99", 1),
    ],
)
def test_behind_the_last_page_is_the_last(client: TestClient, path: str, page: int) -> None:
    """Whoever comes back to a page that has emptied is not told that nothing is left."""
    found = client.get(path.format(audit=audit_page(client), group=groups(client)[0]))
    assert (found.status_code, found.url.params["page"]) == (200, str(page))
    assert '<a class="row"' in found.text or "<article" in found.text


@pytest.mark.parametrize(
    "query", ["since=20261128", "since=2026-W48-6", "until=soon", "severity=worst"]
)
def test_a_filter_that_is_none_is_said(client: TestClient, query: str) -> None:
    """And one at the end of time is none the less a filter."""
    assert client.get(f"/?{query}").status_code == client.get(f"/triage?{query}").status_code == 400
    assert client.get("/?until=9999-12-31").status_code == 200


def test_the_user_who_started_it_is_named(client: TestClient) -> None:
    """So that people see in whose name they decide."""
    assert f"<bdi>{ME.user}</bdi>" in client.get("/").text


@pytest.mark.parametrize("name", ["report.html", "plots/00-shop.png"])
def test_a_page_or_picture_that_the_audit_did_not_write_is_not_sent(
    client: TestClient, config: Path, name: str
) -> None:
    """In its place stands which file of which run directory was changed."""
    path, address = config.parent / "run" / name, audit_page(client)
    address += "/report" if name == "report.html" else f"/{name}"
    whole = path.read_bytes()
    assert client.get(address).content == whole
    path.write_bytes(whole + b" ")
    try:
        refused = client.get(address)
        assert refused.status_code == 400
        assert f"{name} of {config.parent / 'run'} is not what the audit wrote" in refused.text
    finally:
        path.write_bytes(whole)
    assert client.get(address).content == whole


def test_the_overview_names_trained_models_and_what_moved(tmp_path: Path) -> None:
    """The last probe of each, with the release that it was trained on; whatever a panel is called
    is text.
    """
    config = write_audit(tmp_path, tmp_path, tracking="none")
    release = "e" * 64
    said: dict[str, Any] = {"name": NAME, "model": "m" * 64, "sentinels": "s" * 64}
    moved = {"asked": [{"sentinel": "shop-1", "moved": True}]}
    with Ledger.at(load_config(config).state) as ledger, asking(config) as client:
        add_audit(ledger, NOON, NOON)
        assert "Models after training" not in client.get("/").text
        with ledger.write() as connection:
            append_record(connection, "release", release, {"manifest": release}, {}, None)
        panels = [{"panel": "<b>shop", "moved": True}]
        record_probe(
            ledger, "one", checkpoint="c" * 64, release=release, panels=panels, **moved, **said
        )
        record_probe(ledger, "two", checkpoint="d" * 64, release=None, asked=[], **said)
        page = client.get("/").text
        assert "1 of 1 sentinel moved, and 1 panel as a whole (&lt;b&gt;shop)" in page
        assert f"/lineage?name={NAME}&amp;of={release[:16]}" in page
        assert "not said" in page
        assert page.index("d" * 12) < page.index("c" * 12)
        assert "Models after training" not in client.get("/", params={"name": "other"}).text


def test_the_overview_names_checkpoints_that_could_not_be_probed(tmp_path: Path) -> None:
    """Those of the last look, and why, where no model was ever probed, too; both are text."""
    config = write_audit(tmp_path, tmp_path, tracking="none")
    failed = FailedProbe("/out/<i>checkpoint-9", "its weights end early: <script>")
    with Ledger.at(load_config(config).state) as ledger, asking(config) as client:
        add_audit(ledger, NOON, NOON)
        record_look(ledger, NAME, [failed], NOON)
        page = client.get("/").text
        assert "/out/&lt;i&gt;checkpoint-9" in page
        assert "its weights end early: &lt;script&gt;" in page
        assert "its weights" not in client.get("/", params={"name": "other"}).text
        record_look(ledger, NAME, [], NOON)
        assert "Models after training" not in client.get("/").text
