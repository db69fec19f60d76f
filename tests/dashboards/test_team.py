"""People who review together, on the pages of the queue."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import asking, copy_audit, groups
from starlette.testclient import TestClient
from tampering import verify

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.users import change_users, fold_name, make_user
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.ledger import Ledger

HOSTILE = "look <b>here</b> {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def own(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the audit, where two people must agree on everything."""
    return copy_audit(config, tmp_path_factory.mktemp("team"), review={"two_people": "all"})


@pytest.fixture
def ann(own: Path) -> Iterator[TestClient]:
    with asking(own) as client:
        yield client


@pytest.fixture
def bob(own: Path) -> Iterator[TestClient]:
    with asking(own, Access(user="bob")) as client:
        yield client


def count(own: Path) -> int:
    with Ledger.at(load_config(own).state) as ledger:
        assert verify(ledger).differences == []
        return len(list(read_decisions(ledger)))


def test_what_one_says_waits_for_another_and_can_be_taken_back(
    ann: TestClient, bob: TestClient, own: Path
) -> None:
    """Each sees what the other said; the second who says the same decides."""
    address = groups(ann)[0]
    form = {"row": "open", "verdict": "poison", "note": HOSTILE}
    before = count(own)
    said = ann.post(address, data=form)
    assert "it counts once a second person says the same" in said.text
    assert "two people must agree" in said.text
    assert "in review" in ann.get("/triage").text
    assert ann.post(address, data=form).status_code == 400
    number = re.findall(r'name="proposed" value="([0-9]+)"', said.text)[0]
    assert bob.post("/triage/undo", data={"proposed": number}).status_code == 400
    ann.post("/triage/undo", data={"proposed": number, "back": address})
    assert "says <b>poison</b>" not in bob.get(address).text
    ann.post(address, data=form)
    assert (count(own), "look &lt;b&gt;here&lt;/b&gt; {{ 7 * 7 }}" in bob.get(address).text) == (
        before,
        True,
    )
    decided = bob.post(address, data={**form, "note": ""})
    assert "who agrees with <bdi>ann</bdi>" in decided.text
    assert count(own) > before
    assert "<b>100 %</b>" in bob.get("/triage/agreement").text
    assert "No second person" in bob.get("/triage/agreement?name=another").text
    assert address not in groups(ann, "open")
    done = re.findall(r'name="done" value="([0-9-]+)"', decided.text)[0]
    assert "reopened" in bob.post("/triage/undo", data={"done": done, "back": address}).text
    assert address in groups(ann, "reopened")


def test_a_group_is_taken_assigned_and_given_back(
    ann: TestClient, bob: TestClient, own: Path
) -> None:
    """The queue can be narrowed down to somebody's, or nobody's."""
    address = groups(ann)[-1]
    shown = ann.post(f"{address}/assign", data={"to": "me"}).text
    assert "Assigned to <bdi>ann</bdi>" in shown
    assert address in groups_of(ann, "ann")
    assert address not in groups_of(ann, "(nobody)")
    name = "<i>eve</i>"
    assert ann.post(f"{address}/assign", data={"to": "name", "assignee": ""}).status_code == 400
    ann.post(f"{address}/assign", data={"to": "name", "assignee": name})
    assert "Assigned to <bdi>&lt;i&gt;eve&lt;/i&gt;</bdi>" in bob.get(address).text
    assert address in groups_of(ann, name)
    ann.post(f"{address}/assign", data={"to": "nobody"})
    assert address in groups_of(bob, "(nobody)")
    count(own)


def groups_of(client: TestClient, assignee: str) -> list[str]:
    page = client.get("/triage", params={"state": "all", "assignee": assignee}).text
    return re.findall(r"/triage/[0-9a-f-]+/[0-9a-f]+", page)


def test_where_there_are_accounts_groups_are_assigned_to_those_who_may_decide(own: Path) -> None:
    """By the name of the account, however it is spelt."""
    path = own.parent / ".poisonwatch-users.json"
    with change_users(path) as users:
        users[fold_name("Eve")] = make_user("Eve", "reviewer", "correct horse")
        users[fold_name("Vic")] = make_user("Vic", "viewer", "correct horse")
    try:
        with asking(own) as client:
            address = groups(client)[-1]
            form = {"to": "name", "assignee": "eve"}
            assert "Assigned to <bdi>Eve</bdi>" in client.post(f"{address}/assign", data=form).text
            for name in ("Vic", "Zoe"):
                form = {"to": "name", "assignee": name}
                assert client.post(f"{address}/assign", data=form).status_code == 400
            client.post(f"{address}/assign", data={"to": "nobody"})
    finally:
        path.unlink()


def test_comments_stay(ann: TestClient, bob: TestClient, own: Path) -> None:
    """In their order, as text."""
    address = groups(ann)[0]
    ann.post(f"{address}/comment", data={"text": HOSTILE})
    shown = bob.post(f"{address}/comment", data={"text": "mine\ntoo"}).text
    assert "look &lt;b&gt;here&lt;/b&gt; {{ 7 * 7 }}" in shown
    assert shown.index("look &lt;b&gt;") < shown.index("mine")
    for text in (" ", "x" * 5000):
        assert ann.post(f"{address}/comment", data={"text": text}).status_code == 400
    count(own)


def test_the_next_open_row_is_one_that_is_left_to_whoever_asks(
    ann: TestClient, bob: TestClient
) -> None:
    """Not one that somebody else has, nor one that they have said something of."""
    first = groups(ann, "open")[0]
    assert find_next(ann).startswith(f"{first}#row-")
    bob.post(f"{first}/assign", data={"to": "me"})
    assert not find_next(ann).startswith(first)
    assert find_next(bob).startswith(first)
    row = find_next(bob).partition("#row-")[2]
    example_id = re.findall(rf'value="({row}[0-9a-f]+)"', bob.get(first).text)[0]
    bob.post(first, data={"row": example_id, "verdict": "benign", "note": ""})
    after = find_next(bob, at=first.removeprefix("/triage/"))
    assert after.partition("#row-")[2] != row
    bob.post(f"{first}/assign", data={"to": "nobody"})


def find_next(client: TestClient, **query: str) -> str:
    return client.get("/triage/next", params=query, follow_redirects=False).headers["Location"]


def test_whoever_may_not_decide_neither_assigns_nor_comments(own: Path) -> None:
    """And sees no form."""
    with asking(own, Access(user="vera", read_only=True)) as client:
        address = groups(client)[0]
        page = client.get(address).text
        for form in ("assign", "comment"):
            assert f"{address}/{form}" not in page
            assert client.post(f"{address}/{form}", data={"to": "me"}).status_code == 403
