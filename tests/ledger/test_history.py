"""Past audits, and what they owe."""

from contextlib import suppress
from pathlib import Path

from audits import benign
from ledgers import NAME, ONE, covered_ledger

from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.history import (
    count_undecided,
    find_by_flow_run,
    find_by_run_dir,
    list_past_audits,
    list_pending_audits,
    list_pending_targets,
    list_undecided_ids,
    mark_audit_delivered,
)
from poisonwatch.ledger.outbox import MLFLOW, PREFECT

FLAGGED = benign(1)[0]["prompt"]


def test_audits_come_newest_first(tmp_path: Path) -> None:
    """With what they hold for; at most as many as are asked for, of the name that is asked for."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        with open_audit(ledger, "second", NAME, ONE, tmp_path / "second"):
            pass
        newest, oldest = list_past_audits(ledger)
        assert (newest.audit_id, oldest.audit_id) == ("second", "run")
        assert (oldest.model, oldest.sentinels, oldest.summary) == (
            ONE.model,
            ONE.sentinels,
            {"run": "run"},
        )
        assert oldest.has_results
        assert list_past_audits(ledger, NAME, 1) == [newest]
        assert list_past_audits(ledger, "another") == []


def test_a_debt_lasts_from_the_audit_s_start_until_it_is_settled(tmp_path: Path) -> None:
    """An audit that dies owes, too; one at work does not yet. What is added is in the summary from
    then on.
    """
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        with (
            suppress(RuntimeError),
            open_audit(
                ledger,
                "dies",
                NAME,
                ONE,
                tmp_path / "dies",
                report_to=(MLFLOW, PREFECT),
                flow_run="flow-1",
            ),
        ):
            assert list_pending_audits(ledger, NAME, MLFLOW) == []
            raise RuntimeError
        (debtor,) = list_pending_audits(ledger, NAME, MLFLOW)
        assert (debtor.audit_id, debtor.state, debtor.has_results) == ("dies", "interrupted", False)
        assert list_pending_targets(ledger, [debtor.number]) == {debtor.number: {MLFLOW, PREFECT}}
        mark_audit_delivered(ledger, debtor.number, MLFLOW, {"mlflow_run_id": "r"})
        assert list_pending_audits(ledger, NAME, MLFLOW) == []
        assert list_pending_targets(ledger, [debtor.number]) == {debtor.number: {PREFECT}}
        assert list_past_audits(ledger)[0].summary == {}
        run = list_past_audits(ledger)[1]
        mark_audit_delivered(ledger, run.number, MLFLOW, {"mlflow_run_id": "r"})
        assert list_past_audits(ledger)[1].summary == {"run": "run", "mlflow_run_id": "r"}
        assert list_pending_targets(ledger, [run.number]) == {}


def test_an_audit_is_found_by_its_flow_run_and_its_run_directory(tmp_path: Path) -> None:
    """Where it came to its results; else there is none."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        with (
            suppress(RuntimeError),
            open_audit(
                ledger, "dies", NAME, ONE, tmp_path / "dies", report_to=(), flow_run="flow-1"
            ),
        ):
            raise RuntimeError
        with open_audit(
            ledger, "lives", NAME, ONE, tmp_path / "lives", report_to=(), flow_run="flow-2"
        ):
            pass
        assert find_by_flow_run(ledger, "flow-1") is None
        assert find_by_flow_run(ledger, "flow-2") == list_past_audits(ledger)[0]
        assert find_by_run_dir(ledger, tmp_path / "dies") is None
        found = find_by_run_dir(ledger, tmp_path / "run")
        assert found is not None
        assert found.audit_id == "run"


def test_flagged_rows_wait_until_somebody_decides(tmp_path: Path) -> None:
    """unsure takes a decision back: the row waits again."""
    with covered_ledger(tmp_path, FLAGGED) as ledger:
        (run,) = list_past_audits(ledger)
        (id,) = list_undecided_ids(ledger, run.number)
        assert count_undecided(ledger, [run.number]) == {run.number: 1}
        record_decision(ledger, id, "poison")
        assert count_undecided(ledger, [run.number]) == {}
        assert list_undecided_ids(ledger, run.number) == []
        record_decision(ledger, id, "unsure")
        assert list_undecided_ids(ledger, run.number) == [id]
