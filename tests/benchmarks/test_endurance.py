"""The benchmark of faults in operation: what it takes for wrong, and what it puts in the way."""

import http.client
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from endurance import build_table, choose_fault, find_wrong, list_missing, read_rounds
from endurance_accounts import MUST_BE_NOTHING, is_report_missing
from endurance_faults import list_faults
from endurance_site import Gateway
from servers import free_port, http_receiver

TOLD = {"alert": True, "status": 1}


def make_line(**changes: Any) -> dict[str, Any]:
    """A round in which all went well."""
    well = {
        "round": 0,
        "ledger": "sqlite",
        "fault": "audit killed (-9)",
        "outcome": {"ended": -9, "told": TOLD},
        "next": {"new": 26},
        "tries": 1,
        "silences told": 1,
        "ends told": 1,
        "accounts": dict.fromkeys(MUST_BE_NOTHING, 0),
    }
    return {**well, **changes}


@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
def test_each_turn_has_every_kind_of_fault_once(ledger: str) -> None:
    """The order differs from turn to turn, and is that of the seed."""
    kinds = list_faults(ledger)
    turns = [
        [choose_fault(ledger, turn * len(kinds) + place, 0) for place in range(len(kinds))]
        for turn in range(2)
    ]
    assert set(turns[0]) == set(turns[1]) == set(kinds)
    assert turns[0] != turns[1]


def test_a_campaign_of_chosen_kinds_has_no_others_and_goes_on_where_it_stopped() -> None:
    """What another choice left in the same file is no round of it."""
    chosen = ["audit killed (-9)", "disk full (200 kB left)", "nothing"]
    rounds = list_missing([], "sqlite", 6, 0, chosen)
    assert [number for number, _ in rounds] == [0, 1, 2, 3, 4, 5]
    assert sorted(fault for _, fault in rounds) == sorted(chosen * 2)
    number, fault = rounds[2]
    done = make_line(round=number, fault=fault)
    others = [make_line(round=1, fault="MLflow answers 503"), {**done, "ledger": "postgresql"}]
    assert list_missing([done, *others], "sqlite", 6, 0, chosen) == [*rounds[:2], *rounds[3:]]


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": {"ended": -9, "told": {"alert": False, "status": 0}}},
        {"outcome": {"broken": "TimeoutError: no audit came"}},
        {"next": {"failed": "no ledger"}},
        {"tries": 2},
        {"ends told": 0},
        {"accounts": {**dict.fromkeys(MUST_BE_NOTHING, 0), "alerts not received": 1}},
        {"accounts": {**dict.fromkeys(MUST_BE_NOTHING, 0), "rows without a result": -1}},
    ],
)
def test_what_is_lost_or_silent_is_found(changes: dict[str, Any]) -> None:
    """And nothing else is."""
    assert find_wrong(make_line()) == []
    (wrong,) = find_wrong(make_line(**changes))
    assert wrong in build_table([make_line(**changes)])


def test_a_report_is_missing_where_the_audit_does_not_say_that_it_could_not_be_written(
    tmp_path: Path,
) -> None:
    """A full disk costs no verdict, and is told."""
    failure = {"part": "report.html", "outcome": "not written", "why": "No space left on device"}
    audit = SimpleNamespace(run_dir=tmp_path, summary={"failures": [failure]})
    silent = SimpleNamespace(run_dir=tmp_path, summary={})
    assert (is_report_missing(audit), is_report_missing(silent)) == (False, True)
    (tmp_path / "report.html").touch()
    assert not is_report_missing(silent)


def test_a_campaign_that_has_not_begun_has_no_rounds(tmp_path: Path) -> None:
    assert read_rounds(tmp_path / "rounds.jsonl") == []


def test_the_gateway_hands_on_and_stands_in_the_way() -> None:
    """As a proxy in front of MLflow: as it is, refusing all, refusing long bodies, with nobody
    behind it.
    """
    with http_receiver() as receiver, Gateway(receiver.server_port) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()

        def post(body: str, chunked: bool = False) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.server_port, timeout=60)
            content = iter([body[:3].encode(), body[3:].encode()]) if chunked else body
            connection.request("POST", "/", content, encode_chunked=chunked)
            return connection.getresponse().status

        assert post('"short"') == 200
        assert post('"in pieces"', chunked=True) == 200
        gateway.status = 503
        assert post('"short"') == 503
        gateway.heal()
        gateway.limit = 10
        assert (post('"short"'), post('"too long for it"')) == (200, 413)
        gateway.heal()
        gateway.behind = free_port()
        assert post('"short"') == 502
        assert receiver.received == ["short", "in pieces", "short"]
        gateway.shutdown()
