"""`poisonwatch alert-test` says who can be told, and of whom not, why."""

from pathlib import Path

import pytest
from audits import write_audit
from notified import SECRET
from servers import free_port, http_receiver, smtp_receiver

from poisonwatch.flows.cli.app import main


def run(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["alert-test", str(path)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_alert_test_says_who_was_reached(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 where all were, 1 where one was not, 2 where there is nobody; no secret is
    printed.
    """
    with http_receiver() as receiver:
        good, bad = (
            f"json://{receiver.address}/{SECRET}",
            f"json://ann:{SECRET}@127.0.0.1:{free_port()}/",
        )
        code, said = run(capsys, write_audit(tmp_path / "good", tiny_folder, alerts=[good]))
        assert (code, said) == (0, "alerts[1] json: delivered\n")
        assert receiver.received[0]["title"] == "Poisonwatch: a test for tiny"
        # As long as a real one: rows, excerpts, continuations and all.
        assert len(receiver.received[0]["message"]) > 2_000
        code, said = run(capsys, write_audit(tmp_path / "both", tiny_folder, alerts=[bad, good]))
        assert (code, said) == (
            1,
            "alerts[1] json: failed: cannot be reached\nalerts[2] json: delivered\n",
        )
        code, said = run(capsys, write_audit(tmp_path / "none", tiny_folder))
        assert code == 2
        assert "has no alerts" in said
        assert not (tmp_path / "good" / "poisonwatch.db").exists()


def test_alert_test_says_what_to_do_about_a_server_without_starttls(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and with exit code 1."""
    with smtp_receiver() as (server, port):
        url = f"mailtos://127.0.0.1:{port}/?mode=starttls&from=a@example.org&to=b@example.org"
        code, said = run(capsys, write_audit(tmp_path / "mail", tiny_folder, alerts=[url]))
    assert code == 1
    assert said.startswith("alerts[1] mailtos: failed: offers no STARTTLS: add ?mode=ssl to its ")
    assert said.count("\n") == 1
    assert server.received == []
