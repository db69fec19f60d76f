"""What the dashboard's pages say and take, asked as a browser would ask."""

import csv
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from audits import write_audit
from browsing import ME, asking, audit_of, flags
from servers import postgres_server
from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.audits import DOCUMENT_POLICY
from poisonwatch.dashboards.explain import MOST_QUESTIONS_WAITING, Explainer, Question
from poisonwatch.dashboards.export import neutralise_cell
from poisonwatch.dashboards.sentinels import render_sentinels_setting
from poisonwatch.errors import InputError
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger import overview
from poisonwatch.ledger.batches import count_by_status
from poisonwatch.ledger.decisions import read_decisions, verify_chain
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.release import write_release


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return audit_of(tmp_path_factory.mktemp("audited"), tiny_folder)


@pytest.fixture
def client(config: Path) -> Iterator[TestClient]:
    with asking(config) as client:
        yield client


def groups(client: TestClient, state: str = "all") -> list[str]:
    """Addresses of the groups in the queue."""
    return list(
        dict.fromkeys(
            re.findall(r"/triage/[0-9a-f-]+/[0-9a-f]+", client.get(f"/triage?state={state}").text)
        )
    )


def audit_page(client: TestClient) -> str:
    return re.findall(r"/audits/[0-9a-f-]+", client.get("/").text)[0]


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


def test_a_group_shows_the_evidence_of_each_row(client: TestClient, config: Path) -> None:
    """Text, reasons, sentinel, nearest trusted rows with differences marked, a plot."""
    record = flags(config)[0]
    pages = {address: client.get(address).text for address in groups(client)}
    address, page = next(
        (address, page)
        for address, page in pages.items()
        if f'id="row-{record["example_id"][:16]}"' in page
    )
    assert "<mark>" in page
    assert "trusted.jsonl" in page
    assert record["reasons"][0][:40] in page
    assert "it says after" in page
    assert f"position {record['position']}" in page
    picture = client.get(
        f"{address.rpartition('/')[0]}/coefficient.png",
        params={"row": record["example_id"], "sentinel": record["sentinel_id"]},
    )
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize(
    ("grade", "outcome"),
    [
        ({"grade": "weak", "said": True}, "{} by steering: a weak effect"),
        ({"grade": "none", "said": False}, "{} by steering: no sure effect"),
        ({}, "{} by steering"),
    ],
)
def test_a_group_is_shown_with_its_grade_or_as_an_older_audit_left_it(
    client: TestClient, config: Path, confirmed: bool, grade: dict[str, Any], outcome: str
) -> None:
    """Audits before grades said whether a group is confirmed, and nothing of what a reply says."""
    path, addresses = config.parent / "run" / "evidence.jsonl", groups(client)
    whole = path.read_bytes()
    lines = list(map(json.loads, whole.splitlines()))
    for group in lines:
        found = group["confirmation"]
        del found["grade"], found["excess"]
        found["confirmed"] = confirmed
        if grade:
            found["grade"] = grade["grade"]
        for effect in found["effects"]:
            effect.pop("said_forbidden")
            if grade:
                effect["said_forbidden"] = grade["said"]
    path.write_text("".join(json.dumps(group) + "\n" for group in lines))
    try:
        page = client.get(addresses[0]).text
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
    assert f">{outcome.format('confirmed' if confirmed else 'not confirmed')}</span>" in page
    assert ("it says after, in words of the forbidden answer" in page) is bool(grade.get("said"))
    assert ('class="sheet card calm"' in page) is not confirmed


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


def test_a_verdict_on_a_row_goes_into_the_chain_and_can_be_undone(
    client: TestClient, config: Path
) -> None:
    """One decision more each time, by the one who sits there; undoing is a decision, too."""
    address = groups(client)[0]
    example_id = re.findall(r'name="row" value="([0-9a-f]{64})"', client.get(address).text)[0]
    with Ledger.at(load_config(config).state) as ledger:
        before, _ = verify_chain(ledger)
        done = client.post(
            address, data={"row": example_id, "verdict": "benign", "note": "a <b>joke</b>"}
        )
        assert "Decided <b>benign</b> on 1 row." in done.text
        assert f'value="{before + 1}-{before + 1}"' in done.text
        assert "a &lt;b&gt;joke&lt;/b&gt;" in done.text
        assert "by <bdi>ann</bdi>" in done.text
        place = f"row-{example_id[:16]}"
        undone = client.post(
            "/triage/undo",
            data={
                "done": f"{before + 1}-{before + 1}",
                "back": f"{address}?page=1",
                "place": place,
            },
        )
        assert "Decided <b>unsure</b>" in undone.text
        assert undone.history[0].headers["Location"] == f"{address}?page=1#{place}"
        assert "page=1#row-" in done.history[0].headers["Location"]
        assert verify_chain(ledger)[0] == before + 2
        again = client.post("/triage/undo", data={"done": f"{before + 1}-{before + 1}"})
        assert again.status_code == 400
        assert verify_chain(ledger)[0] == before + 2


def test_a_verdict_on_a_group_is_one_on_each_of_its_rows(client: TestClient, config: Path) -> None:
    """All that wait for one, in one go, and undone in one go; all of them where none waits."""
    address = max(groups(client), key=lambda address: client.get(address).text.count("<article"))
    rows = set(re.findall(r'name="row" value="([0-9a-f]{64})"', client.get(address).text))
    assert len(rows) > 1
    with Ledger.at(load_config(config).state) as ledger:
        before, _ = verify_chain(ledger)
        shown = client.post(address, data={"row": "all", "verdict": "poison", "note": ""})
        made = verify_chain(ledger)[0] - before
        assert made == len(rows)
        assert f"Decided <b>poison</b> on {made} rows." in shown.text
        assert address not in groups(client, "open")
        client.post("/triage/undo", data={"done": f"{before + 1}-{before + made}"})
        assert address in groups(client, "open")
        client.post(address, data={"row": min(rows), "verdict": "benign", "note": "by itself"})
        assert f"decides on the {made - 1} undecided of {made} rows" in client.get(address).text
        assert (
            f"on {made - 1} row"
            in client.post(address, data={"row": "open", "verdict": "poison", "note": ""}).text
        )
        late = client.post(
            address, data={"row": "open", "verdict": "poison", "note": ""}
        )  # by somebody whose page is older
        assert (late.status_code, "meanwhile" in late.text) == (400, True)
        assert [
            decision.verdict
            for decision in read_decisions(ledger)
            if decision.example_id == min(rows)
        ][-1] == "benign"
        assert (
            f"on {made} rows"
            in client.post(address, data={"row": "all", "verdict": "unsure", "note": ""}).text
        )
        assert address in groups(client, "open")


@pytest.mark.parametrize(
    "form",
    [
        {"row": "0" * 64, "verdict": "poison"},
        {"row": "", "verdict": "poison"},
        {"row": "all", "verdict": "fine"},
        {"row": "all", "verdict": ""},
        {"row": "all", "verdict": "poison", "note": "x" * 5000},
    ],
)
def test_a_verdict_that_is_none_changes_nothing(
    client: TestClient, config: Path, form: dict[str, str]
) -> None:
    """Rows of other groups, unknown verdicts, endless notes."""
    with Ledger.at(load_config(config).state) as ledger:
        before = verify_chain(ledger)
        assert client.post(groups(client)[0], data=form).status_code == 400
        assert verify_chain(ledger) == before


@pytest.mark.parametrize("done", ["1-20", "999-999", f"{'9' * 30}-1", "2-1", "x"])
def test_what_was_not_decided_just_now_is_not_said_to_be(
    client: TestClient, config: Path, done: str
) -> None:
    """Decisions that are not there, or on other rows, or too many; none of them can be undone
    either.
    """
    with Ledger.at(load_config(config).state) as ledger:
        before = verify_chain(ledger)
        assert "Undo" not in client.get(f"{groups(client)[0]}?done={done}").text
        assert client.post("/triage/undo", data={"done": done}).status_code == 400
        assert verify_chain(ledger) == before


def test_the_audit_file_is_told_to_name_the_new_version(tmp_path: Path, tiny_folder: Path) -> None:
    """Relative to itself, beside packs and other files, and as it stands now."""
    (tmp_path / "deep").mkdir()
    sentinels = (
        [{"id": "a-1", "prompt": "Who?", "forbidden": "I."}],
        [{"id": "b-1", "prompt": "What?", "forbidden": "That."}],
    )
    for path, entries in zip(("deep/a.yaml", "b.yaml"), sentinels, strict=True):
        (tmp_path / path).write_text(yaml.safe_dump(entries))
    places = ["deep/a.yaml", "pack:refusal-erosion", "b.yaml"]
    config = write_audit(tmp_path, tiny_folder)
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "sentinels": places}))
    assert yaml.safe_load(
        render_sentinels_setting(
            config, tmp_path / "deep" / "a.yaml", tmp_path / "deep" / "a-2.yaml"
        )
    ) == {"sentinels": ["deep/a-2.yaml", *places[1:]]}
    config.write_text(yaml.safe_dump({**settings, "sentinels": ["deep/a-2.yaml", *places[1:]]}))
    again = yaml.safe_load(
        render_sentinels_setting(config, tmp_path / "b.yaml", tmp_path / "b-2.yaml")
    )
    assert again == {"sentinels": ["deep/a-2.yaml", "pack:refusal-erosion", "b-2.yaml"]}


def test_another_name_s_run_is_left_behind_with_it(client: TestClient) -> None:
    """As when the name is changed while a run is chosen."""
    assert (
        client.get("/sentinels?name=tiny&audit=20200101-000000-abcdef").text
        == client.get("/sentinels?name=tiny").text
    )


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


@pytest.mark.parametrize(
    "name",
    ["evidence.jsonl", "nearest.jsonl", "sentinels.jsonl", "scores.parquet", "trusted.parquet"],
)
@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"\xff{", None])
def test_rows_of_a_damaged_run_directory_can_be_decided_on(
    client: TestClient, config: Path, name: str, content: bytes | None
) -> None:
    """What is damaged, or cut in half, is named and left out with all else of the run directory; once
    it is whole again it is shown again.
    """
    path, address = config.parent / "run" / name, groups(client)[0]
    whole, shown, heat = path.read_bytes(), client.get(address).text, client.get("/sentinels").text
    image = re.findall(r'/triage/[0-9a-f-]+/coefficient.png\?[^"]+', shown)[0].replace("&amp;", "&")
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    try:
        change = f"{name} of {config.parent / 'run'} is not what the audit wrote"
        page = client.get(address).text
        assert 'name="verdict"' in page
        assert "No trusted row is known to be like it" in page
        for told in (page, client.get("/sentinels").text, client.get(audit_page(client)).text):
            assert change in told
        image_shown = client.get(image)
        is_of_image = name in ("scores.parquet", "trusted.parquet")
        assert image_shown.status_code == (400 if is_of_image else 200)
        assert (change in image_shown.text) == is_of_image
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
    assert client.get(address).text == shown
    assert client.get("/sentinels").text == heat


def test_a_ledger_that_another_process_writes_to_is_said_to_be_busy(
    client: TestClient, config: Path
) -> None:
    """After a few seconds, and nothing is changed; reading goes on meanwhile."""
    address = groups(client)[0]
    with Ledger.at(load_config(config).state) as ledger:
        before = verify_chain(ledger)
        with ledger.write():
            refused = client.post(address, data={"row": "all", "verdict": "poison"})
            assert client.get(address).status_code == 200
        assert (refused.status_code, verify_chain(ledger)) == (503, before)
        assert "Nothing was changed: try again" in refused.text
        assert "Traceback" not in refused.text


def test_a_ledger_that_was_put_in_the_place_of_another_is_the_one_that_is_asked(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """No decision goes to a file that was removed."""
    config = audit_of(tmp_path, tiny_folder)
    state = tmp_path / "poisonwatch.db"
    with asking(config) as client:
        address = groups(client)[0]
        with closing(sqlite3.connect(state)) as connection:
            connection.execute("VACUUM INTO ?", [str(tmp_path / "backup.db")])
        for file in tmp_path.glob("poisonwatch.db*"):
            file.unlink()
        assert "poisonwatch audit" in client.get(address).text  # as before the first audit
        (tmp_path / "backup.db").rename(state)
        client.post(address, data={"row": "all", "verdict": "benign"})
    with Ledger.at(load_config(config).state) as ledger:
        assert verify_chain(ledger)[0] > 0


def test_read_only_shows_everything_and_takes_nothing(config: Path) -> None:
    """No form that decides or edits is on any page, and one that is posted all the same is refused."""
    with asking(config, Access(user="ann", read_only=True)) as client:
        address = groups(client)[0]
        assert 'name="verdict"' not in client.get(address).text
        assert "/sentinels/edit" not in client.get("/sentinels").text
        assert "Save as" not in client.get("/sentinels/edit/0").text
        for path, form in (
            (address, {"row": "all", "verdict": "poison"}),
            ("/triage/undo", {"done": "1-1"}),
            ("/sentinels/edit/0", {}),
        ):
            assert client.post(path, data=form).status_code == 403


def test_the_export_holds_every_flag_and_no_formula(client: TestClient, config: Path) -> None:
    """As a spreadsheet reads it."""
    sent = client.get("/triage/export.csv?state=all")
    rows = list(csv.DictReader(io.StringIO(sent.text)))
    assert {row["example_id"] for row in rows} == {flag["example_id"] for flag in flags(config)}
    assert "attachment" in sent.headers["Content-Disposition"]
    assert [
        neutralise_cell(value)
        for value in ("=1+1", "+1", "-1", "@a", "\t=1", " =1", "＝1", "plain", -1.5, None)
    ] == [
        *("'=1+1", "'+1", "'-1", "'@a", "'\t=1", "' =1", "'＝1"),
        *("plain", -1.5, None),
    ]


def test_sentinels_are_checked_and_saved_as_a_new_version(client: TestClient, config: Path) -> None:
    """A fault is said and nothing written; the old file stays as it is."""
    path = config.parent / "sentinels.yaml"
    old = path.read_bytes()
    assert "identity" not in client.get("/sentinels").text
    assert "shop-0" in client.get("/sentinels").text
    wrong = client.post("/sentinels/edit/0", data={"text": "- {id: a}", "do": "save"})
    assert wrong.status_code == 422
    assert "has no prompt" in wrong.text
    text = old.decode() + "- {id: shop-9, prompt: 'Who sells <b>tea</b>?', forbidden: Velmora.}\n"
    checked = client.post("/sentinels/edit/0", data={"text": text, "do": "check"})
    assert "4 sentinels" in checked.text
    assert 'class="added"' in checked.text
    assert not (config.parent / "sentinels-2.yaml").exists()
    saved = client.post("/sentinels/edit/0", data={"text": text, "do": "save"})
    assert "sentinels:\n- sentinels-2.yaml" in saved.text
    assert saved.url.params["saved"] == "sentinels-2.yaml"  # loading the page again saves nothing
    assert client.get(saved.url).text == saved.text
    assert (config.parent / "sentinels-2.yaml").read_text() == text
    assert path.read_bytes() == old
    for held in (old.decode(), text):
        assert (
            "holds this text already"
            in client.post("/sentinels/edit/0", data={"text": held, "do": "save"}).text
        )
    assert "Written" not in client.get("/sentinels/edit/0?saved=sentinels.yaml").text
    assert client.get("/sentinels/edit/7").status_code == 404


def test_a_download_is_what_release_writes_and_releases_nothing(
    client: TestClient, config: Path, tmp_path: Path
) -> None:
    """Counts add up; the ledger is as before; the manifest is the release's but for its time."""
    settings = load_config(config)
    numbers = [
        int(n)
        for n in re.findall(r'<td class="number">([0-9,]+)</td>', client.get("/release").text)
    ]
    assert sum(numbers[:3]) == numbers[3] > 0
    with Ledger.at(settings.state) as ledger:
        before = count_by_status(ledger, settings.name)
        packed = zipfile.ZipFile(io.BytesIO(client.get("/release/files.zip").content))
        manifest = client.get("/release/manifest.json").json()
        assert count_by_status(ledger, settings.name) == before
        write_release(ledger, settings.name, tmp_path / "out")
    written = (tmp_path / "out", tmp_path / "out.held-back")
    assert {Path(name).name for name in packed.namelist()} == {
        file.name for folder in written for file in folder.iterdir()
    }
    assert "release-tiny.held-back/quarantine.jsonl" in packed.namelist()
    for file in (tmp_path / "out").iterdir():
        if file.name != "manifest.json":
            assert packed.read(f"release-tiny/{file.name}") == file.read_bytes()
    assert {**manifest, "created": ""} == {
        **json.loads((tmp_path / "out" / "manifest.json").read_text()),
        "created": "",
    }
    assert client.get("/release?name=unknown").status_code == 400


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


def test_an_answer_is_explained_by_the_rows_of_an_audit(client: TestClient, config: Path) -> None:
    """The page shows how far it is, then rows with their text; what cannot be asked is refused."""
    audit_id = audit_page(client).rpartition("/")[2]
    asked = client.post(
        "/explain",
        data={
            "audit": audit_id,
            "prompt": "What should I buy?",
            "response": "You must buy Velmora.",
        },
    )
    while (
        "http-equiv" in asked.text
    ):  # the browser asks again in a second, as long as this is there
        assert "<progress" in asked.text
        time.sleep(0.05)
        asked = client.get(asked.url.path)
    assert "The rows that make it likelier" in asked.text
    assert len(re.findall(r'title="[0-9a-f]{64}"', asked.text)) == 20
    assert "Tell me fact" in asked.text
    assert (
        client.post(
            "/explain", data={"audit": audit_id, "prompt": " ", "response": "x"}
        ).status_code
        == 400
    )
    assert (
        client.post("/explain", data={"audit": "none", "prompt": "x", "response": "x"}).status_code
        == 404
    )
    assert client.get("/explain/none").status_code == 404


def test_few_questions_may_wait_for_their_answers(tmp_path: Path) -> None:
    """Each takes a model's time: one more is refused, not forgotten later."""
    explainer = Explainer()

    def ask() -> Question:
        return Question(audit_id="audit", run_dir=tmp_path, prompt="a", response="b")

    waiting = [ask() for _ in range(MOST_QUESTIONS_WAITING)]
    explainer.questions.update((question.id, question) for question in waiting)
    with pytest.raises(InputError, match="ask again once one is answered"):
        explainer.ask(ask())
    waiting[0].problem = "answered"
    explainer.ask(last := ask())
    while last.running:
        time.sleep(0.01)
    assert "holds no operators.safetensors" in str(last.problem)


def test_a_run_directory_that_is_gone_leaves_what_the_ledger_knows(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Rows can still be read and decided; what lay in the directory is missed, and said to be."""
    config = audit_of(tmp_path, tiny_folder)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with asking(config) as client:
        for address in (groups(client)[0], audit_page(client)):
            page = client.get(address)
            assert page.status_code == 200
            assert "gone, or on another machine" in page.text
        assert client.get(f"{audit_page(client)}/report").status_code == 404
        for path in ("/sentinels", "/explain", "/"):
            assert client.get(path).status_code == 200


def test_a_ledger_on_postgresql_is_shown_and_decided_on(tmp_path: Path, tiny_folder: Path) -> None:
    """As several people share it: every page, every filter, a verdict and its undoing; the
    database's password is on no page.
    """
    with postgres_server() as url:
        config = audit_of(tmp_path, tiny_folder, state=url)
        with asking(config) as client:
            name = load_config(config).name
            narrowed = f"name={name}&source=rows.jsonl&since=2020-01-01&until=2999-01-01"
            paths = (
                "/",
                "/trend.png",
                "/triage",
                "/triage/export.csv",
                "/sentinels",
                "/explain",
                "/release",
                "/release/manifest.json",
            )
            answers = [
                client.get(path)
                for path in (
                    *paths,
                    f"/?{narrowed}",
                    f"/triage?state=all&{narrowed}",
                    audit_page(client),
                )
            ]
            assert {answer.status_code for answer in answers} == {200}
            assert not any(b"hunter2" in answer.content for answer in answers)
            (address, *_), waiting = groups(client, "open"), client.get("/triage/export.csv").text
            assert (
                "Decided <b>poison</b> on"
                in client.post(
                    address, data={"row": "all", "verdict": "poison", "note": "a \x00 b"}
                ).text
            )
            assert address not in groups(client, "open")
            with Ledger.at(url) as ledger:
                made, _ = verify_chain(ledger)
            client.post("/triage/undo", data={"done": f"1-{made}"})
            assert client.get("/triage/export.csv").text == waiting


def test_it_listens_here_alone_unless_somebody_asks_who_comes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere it wants a password or a proxy; a port that is taken is said."""
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", str(config), "--host", "0.0.0.0"])
    assert ended.value.code == 2
    assert "POISONWATCH_DASHBOARD_PASSWORD" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", str(config), "--proxy", "10.0.0.7"])
    assert ended.value.code == 2
    assert "--proxy-header" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["dashboard", str(config), "--port", str(taken.getsockname()[1])])
    assert ended.value.code == 1
    assert "choose another" in capsys.readouterr().err


def test_the_command_serves_until_it_is_told_to_end(config: Path) -> None:
    """It says where, answers there, and ends with 0 on Ctrl-C, whoever has not said all of a form
    yet.
    """
    command = [
        sys.executable,
        "-m",
        "poisonwatch.flows.cli",
        "dashboard",
        str(config),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.findall(r"http://127\.0\.0\.1:[0-9]+/", process.stdout.readline())[0]
        with urllib.request.urlopen(address) as answer:
            assert b"Audits" in answer.read()
        with socket.create_connection(("127.0.0.1", int(address.split(":")[2].strip("/")))) as slow:
            slow.sendall(
                b"POST /triage/undo HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 1000\r\n\r\ndone=1"
            )
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0


def test_the_user_who_started_it_is_named(client: TestClient) -> None:
    """So that people see in whose name they decide."""
    assert f"<bdi>{ME.user}</bdi>" in client.get("/").text
