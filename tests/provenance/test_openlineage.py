"""OpenLineage events, as a real receiver gets them."""

import pytest
from servers import free_port, http_receiver

from poisonwatch.errors import InputError, OperationError
from poisonwatch.provenance.openlineage import API_KEY, build_events, send_events
from poisonwatch.provenance.subject import Subject

pytestmark = pytest.mark.starts
KEY = "thisIsNoRealKey"


def test_audits_and_the_release_are_told_with_what_went_in_and_out(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same runs, whenever they are told."""
    monkeypatch.setenv(API_KEY, KEY)
    with http_receiver() as server:
        assert send_events(build_events(subject), f"http://{server.address}") == 2
        assert send_events(build_events(subject), f"http://{server.address}") == 2
        audit, release, *again = server.received
        assert server.paths[0] == "/api/v1/lineage"
    assert [event["job"]["name"] for event in (audit, release)] == ["audit", "release"]
    assert {event["eventType"] for event in (audit, release)} == {"COMPLETE"}
    assert [each["name"] for each in release["inputs"]] == ["pairs.jsonl", "rows.jsonl"]
    assert [each["name"] for each in release["outputs"]] == ["clean.jsonl"]
    assert [each["run"]["runId"] for each in again] == [
        audit["run"]["runId"],
        release["run"]["runId"],
    ]


def test_a_server_that_takes_nothing_is_one_line_without_key_or_address(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEY, KEY)
    with http_receiver() as server:
        server.answer = 403
        with pytest.raises(OperationError, match="answered 403") as refused:
            send_events(build_events(subject), f"http://me:{KEY}@{server.address}")
    with pytest.raises(OperationError, match="cannot be reached") as gone:
        send_events(build_events(subject), f"http://127.0.0.1:{free_port()}/{KEY}")
    with pytest.raises(InputError, match="no http"):
        send_events(build_events(subject), "nowhere")
    assert KEY not in f"{refused.value} {gone.value}"
