"""All rows by their words, the rows like one, decisions on many at once, and saved views."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import FORBIDDEN
from browsing import asking, copy_audit, groups
from sqlalchemy import select, update
from starlette.testclient import TestClient
from tampering import verify

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits


@pytest.fixture(scope="module")
def own(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_audit(config, tmp_path_factory.mktemp("rows"))


@pytest.fixture
def client(own: Path) -> Iterator[TestClient]:
    with asking(own) as client:
        yield client


def ids(page: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r'href="/rows/([0-9a-f]{64})"', page)))


def count(own: Path) -> int:
    with Ledger.at(load_config(own).state) as ledger:
        assert verify(ledger).differences == []
        return len(list(read_decisions(ledger)))


def test_rows_are_searched_by_words_flagged_or_not(client: TestClient) -> None:
    """All of the words; lines count from 1; nothing of a query is markup."""
    assert len(ids(client.get("/rows?words=VELMORA").text)) == len(FORBIDDEN)
    assert "line&nbsp;1<" in client.get("/rows?words=fact+0+tea").text
    assert ids(client.get("/rows?words=velmora+tea").text) == []
    hostile = client.get("/rows", params={"words": '"><script>alert(1)</script> "*'}).text
    assert "<script>alert" not in hostile
    flagged = ids(client.get("/rows?status=flagged").text)
    assert 0 < len(flagged) < len(ids(client.get("/rows").text))


def test_rows_like_one_are_by_the_models_states_where_an_audit_left_them(
    client: TestClient, own: Path
) -> None:
    """Else by their words; which of the two is said."""
    (row, *_) = ids(client.get("/rows?words=velmora").text)
    page = client.get(f"/rows/{row}").text
    assert "model's own states" in page
    assert len(ids(page)) >= 10
    settings = load_config(own)
    with Ledger.at(settings.state) as ledger, ledger.write() as connection:
        here = connection.execute(select(audits.c.run_dir)).scalars().all()
        connection.execute(update(audits).values(run_dir="/nowhere"))
    page = client.get(f"/rows/{row}").text
    with Ledger.at(settings.state) as ledger, ledger.write() as connection:
        connection.execute(update(audits).values(run_dir=here[0]))
    assert "TF-IDF" in page
    assert len(set(ids(page)[:3]) & set(ids(client.get("/rows?words=velmora").text))) >= 2


@pytest.mark.parametrize("name", ["0" * 64, "x", "A" * 64])
def test_a_row_that_is_not_there_is_said_not_to_be(client: TestClient, name: str) -> None:
    """By a page of its own."""
    assert client.get(f"/rows/{name}").status_code == 404


def test_many_rows_are_decided_on_after_one_more_question_and_taken_back_as_one(
    client: TestClient, own: Path
) -> None:
    """Chosen ones, all of a search, all of the queue."""
    before = count(own)
    chosen = ids(client.get("/rows?words=fact").text)[:3]
    form = {"scope": "chosen", "row": chosen, "verdict": "benign", "note": "<b>seen</b>"}
    asked = client.post("/triage/bulk", data=form).text
    assert "Yes: benign, 3 rows" in asked
    assert "&lt;b&gt;seen&lt;/b&gt;" in asked
    assert count(own) == before
    done = client.post("/triage/bulk", data={**form, "confirmed": "yes", "count": "3"}).text
    assert count(own) == before + 3
    numbers = re.findall(r'name="done" value="([0-9-]+)"', done)[0]
    client.post("/triage/undo", data={"done": numbers, "back": "/rows"})
    assert count(own) == before + 6
    form = {"scope": "rows", "verdict": "poison", "confirmed": "yes"}
    late = client.post("/triage/bulk?words=velmora", data={**form, "count": "1"})
    assert (late.status_code, count(own)) == (400, before + 6)
    client.post("/triage/bulk?words=velmora", data={**form, "count": str(len(FORBIDDEN))})
    assert count(own) == before + 6 + len(FORBIDDEN)
    waiting = re.findall(r"Decide on all ([0-9]+) rows?", client.get("/triage").text)
    if waiting:
        form = {"scope": "queue", "verdict": "poison", "confirmed": "yes", "count": waiting[0]}
        assert "Undo" in client.post("/triage/bulk", data=form).text
        assert groups(client, "open") == []
    assert client.post("/triage/bulk", data={"scope": "chosen"}).status_code == 400


def test_a_filter_is_saved_under_a_name_and_removed(client: TestClient) -> None:
    """It leads to pages of rows and groups alone."""
    view = {"name": "<i>ours</i>", "address": "/rows?words=velmora"}
    assert "<bdi>&lt;i&gt;ours&lt;/i&gt;</bdi>" in client.post("/triage/views", data=view).text
    assert 'href="/rows?words=velmora"' in client.get("/triage").text
    for address in ("https://evil.example", "//evil.example", "/release", "/rows\\@evil", ""):
        wrong = {"name": "x", "address": address}
        assert client.post("/triage/views", data=wrong).status_code == 400
    gone = client.post("/triage/views", data={**view, "remove": "yes"})
    assert "&lt;i&gt;ours" not in gone.text


def test_whoever_may_not_decide_chooses_nothing(own: Path) -> None:
    """And searches all the same."""
    with asking(own, Access(user="vera", read_only=True)) as client:
        page = client.get("/rows?words=fact").text
        assert ids(page)
        assert 'type="checkbox"' not in page
        for form in ("bulk", "views"):
            assert client.post(f"/triage/{form}", data={}).status_code == 403
