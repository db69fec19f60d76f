"""Why something is not there is told in words."""

from pathlib import Path

from ledgers import NAME, sqlite_ledger
from prunable import LAST_ONE, leave, leave_line

from poisonwatch.keep_config import KeepConfig
from poisonwatch.ledger.history import find_by_audit_id
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.pruning.missing import describe_missing_operators, describe_missing_run
from poisonwatch.pruning.plan import plan_pruning
from poisonwatch.pruning.remove import carry_out


def prune(ledger: Ledger, keep: KeepConfig) -> None:
    assert carry_out(ledger, plan_pruning(ledger, NAME, keep), keep) == []


def test_a_run_directory_was_pruned_never_made_or_is_elsewhere(tmp_path: Path) -> None:
    with sqlite_ledger(tmp_path) as ledger:
        leave(ledger, tmp_path, "a")
        leave(ledger, tmp_path, "b").rename(tmp_path / "elsewhere")
        leave(ledger, tmp_path, "c")
        leave_line(ledger, tmp_path, "d")
        prune(ledger, LAST_ONE)
        told = []
        for name in "abd":
            past = find_by_audit_id(ledger, name)
            assert past is not None
            told.append(describe_missing_run(ledger, past))
    assert told[0].startswith("pruned on 20")
    assert told[1:] == ["gone, or on another machine", "none: no row was new"]


def test_operators_were_pruned_or_are_not_there(tmp_path: Path) -> None:
    """The run directory names its ledger; one that is gone names nothing."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.at(url) as ledger:
        told = []
        settings = f"state: {url}\nsource: rows.jsonl\nsentinels: [s.yaml]\nreplay: {{audit_id: a}}"
        run_dir = leave(ledger, tmp_path, "a", settings=settings)
        leave(ledger, tmp_path, "b")
        prune(ledger, KeepConfig(operators=1))
        told.append(describe_missing_operators(run_dir))
    (tmp_path / "ledger.db").unlink()
    told.append(describe_missing_operators(run_dir))
    told.append(describe_missing_operators(tmp_path / "nowhere"))
    assert "pruned on 20" in told[0]
    assert "keep.operators" in told[0]
    assert "holds no operators" in told[1]
    assert "poisonwatch history" in told[2]
