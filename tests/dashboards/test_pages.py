"""The ledger under every page: in PostgreSQL, busy, or replaced by another."""

import sqlite3
from contextlib import closing
from pathlib import Path

from browsing import asking, audit_of, audit_page, groups
from servers import postgres_server
from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.ledger.decisions import verify_chain
from poisonwatch.ledger.ledger import Ledger


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
                "/rows?words=velmora",
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
