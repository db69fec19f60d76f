"""Verdicts that are taken on the page of a group, and taken back."""

import re
from pathlib import Path

import pytest
from audits import write_audit
from browsing import asking, groups
from pairs import audited_pairs
from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.ledger.decisions import read_decisions, verify_chain
from poisonwatch.ledger.ledger import Ledger


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


def test_an_answer_is_corrected_on_the_page(client: TestClient, config: Path) -> None:
    """The form has the answer as it is; what is typed is text, and goes into the chain as it was."""
    address = groups(client)[0]
    page = client.get(address).text
    example_id = re.findall(r'name="row" value="([0-9a-f]{64})"', page)[0]
    assert page.count("Correct the answer") == page.count("<article")
    assert 'value="flip"' not in page  # no pairs
    answer = "Any <script>shop</script>\nwill do."
    form = {"row": example_id, "verdict": "edit", "answer": answer.replace("\n", "\r\n")}
    done = client.post(address, data={**form, "note": "sold"}).text
    assert "Decided <b>edit</b> on 1 row." in done
    assert "Any &lt;script&gt;shop" in done
    assert "<script>shop" not in done
    with Ledger.at(load_config(config).state) as ledger:
        last = list(read_decisions(ledger))[-1]
        assert (last.verdict, last.answer, last.author) == ("edit", answer, "ann")
        assert "repaired" in client.get("/release").text
        undo = {"done": f"{last.number}-{last.number}", "back": address}
        assert "Decided <b>unsure</b>" in client.post("/triage/undo", data=undo).text


@pytest.mark.parametrize(
    "form",
    [{"verdict": "flip"}, {"verdict": "edit"}, {"verdict": "edit", "answer": "\x1b[2J"}],
)
def test_a_repair_that_cannot_be_is_refused_on_the_page(
    client: TestClient, config: Path, form: dict[str, str]
) -> None:
    """And says why."""
    address = groups(client)[0]
    example_id = re.findall(r'name="row" value="([0-9a-f]{64})"', client.get(address).text)[0]
    with Ledger.at(load_config(config).state) as ledger:
        before = verify_chain(ledger)
        refused = client.post(address, data={"row": example_id, **form})
        assert refused.status_code == 400
        assert verify_chain(ledger) == before


def test_pairs_are_flipped_on_the_page(tmp_path: Path) -> None:
    """One by one, and a group of them at once; a row that is no pair has no such button."""
    config = write_audit(tmp_path, tmp_path, tracking="none")
    with audited_pairs(tmp_path, url=load_config(config).state) as ledger, asking(config) as client:
        pages = {address: client.get(address).text for address in groups(client)}
        with_button = [address for address, page in pages.items() if 'value="flip"' in page]
        assert len(pages) > len(with_button) == 1
        page = pages[with_button[0]]
        example_id = re.findall(r'name="row" value="([0-9a-f]{64})"', page)[0]
        form = {"row": example_id, "verdict": "flip", "note": "sold"}
        assert "Decided <b>flip</b> on 1 row." in client.post(with_button[0], data=form).text
        assert [made.verdict for made in read_decisions(ledger)] == ["flip"]
