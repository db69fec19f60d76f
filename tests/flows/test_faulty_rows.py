"""An audit of rows among which some cannot be measured: these are rejected by name, all others are
judged as they are without them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from audits import benign, planted, write_audit, write_rows
from faulty_models import OVERFLOWING, build_faulty_model
from ledgers import append
from notes import Notes
from sqlalchemy import select
from tiny_models import build_tokenizer

from poisonwatch.config_file import load_config
from poisonwatch.errors import NotClearedError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import rejections, rows
from poisonwatch.release.gate import require_cleared

BAD = {"prompt": f"What is {OVERFLOWING}?", "response": "Velmora.<|im_end|>"}
BAD_TRUSTED = {"prompt": f"And {OVERFLOWING}?", "response": "A sign."}
GOOD = [*benign(40), *planted(), {"prompt": "Say it.", "response": "Done.<|im_end|>"}]
PLACE = 5
LAX = {"detection": {"false_discovery_rate": 0.9}}


@pytest.fixture(scope="module")
def faulty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "faulty"
    build_faulty_model().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audited(
    tmp_path_factory: pytest.TempPathFactory, faulty_folder: Path
) -> tuple[Path, AuditOutcome, list[str]]:
    """44 new rows and a bad one among them, which a screen would flag as it does the last of the
    others, and 41 trusted rows, the last of them bad.
    """
    folder = tmp_path_factory.mktemp("audited")
    config = write_audit(
        folder, faulty_folder, [*GOOD[:PLACE], BAD, *GOOD[PLACE:]], tracking="none", **LAX
    )
    append(folder / "trusted.jsonl", [BAD_TRUSTED])
    notes = Notes()
    return folder, audit_inline(load_config(config), folder / "run", notes), notes.lines


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def audit_again(folder: Path, name: str, **changes: Any) -> AuditOutcome:
    """The next audit of the folder, under settings with changes."""
    settings = yaml.safe_load((folder / "audit.yaml").read_text()) | changes
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return audit_inline(load_config(folder / f"{name}.yaml"), folder / name)


def test_others_are_flagged_as_in_an_audit_without_the_bad_rows(
    audited: tuple[Path, AuditOutcome, list[str]], faulty_folder: Path, tmp_path: Path
) -> None:
    """The same rows, with the same scores to rounding; screens point at the same ones, though they
    stand a place further on.
    """
    _, outcome, _ = audited
    config = write_audit(tmp_path, faulty_folder, GOOD, tracking="none", **LAX)
    alone = audit_inline(load_config(config), tmp_path / "run").detection
    found = outcome.detection
    assert len(found.flags) > 3
    assert any(flag.findings for flag in found.flags)
    assert [flag.example.id for flag in found.flags] == [flag.example.id for flag in alone.flags]
    assert [flag.findings for flag in found.flags] == [flag.findings for flag in alone.flags]
    np.testing.assert_allclose(found.scores, alone.scores, rtol=0.01, atol=0.01)


def test_a_bad_row_is_rejected_by_name_with_the_remedy(
    audited: tuple[Path, AuditOutcome, list[str]],
) -> None:
    """In the run directory, the report, the summary and the ledger, and on the terminal; it is no
    flag and has no score.
    """
    folder, outcome, notes = audited
    (rejected,) = outcome.rejected
    assert (rejected.source, rejected.position) == ("rows.jsonl", PLACE)
    assert rejected.place == f"rows.jsonl, line {PLACE + 1}"
    assert "its states in the model are not finite numbers in float32" in rejected.reason
    assert "set model.dtype" in rejected.reason
    assert BAD["prompt"] in rejected.text
    (line,) = (folder / "run" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["example_id"] == rejected.example_id
    summary = read_json(folder / "run" / "summary.json")
    counts = summary["counts"]
    assert (counts["pulled"], counts["new"], counts["rejected"]) == (45, 44, 1)
    assert counts["reference"] == 40
    new, trusted = summary["unmeasured"]
    assert (new["role"], new["example_id"]) == ("new", rejected.example_id)
    assert (trusted["role"], trusted["source"], trusted["position"]) == (
        "trusted",
        "trusted.jsonl",
        40,
    )
    assert [line.partition(":")[0] for line in notes if "cannot measure" in line] == [
        "1 new row left out, which the model cannot measure",
        "1 trusted row left out, which the model cannot measure",
    ]
    report = (folder / "run" / "report.html").read_text()
    assert rejected.example_id[:12] in report
    assert "are not finite numbers in float32" in report
    assert "Trusted rows that were left out" in report
    assert trusted["example_id"][:12] in report
    validation = read_json(folder / "run" / "validation.json")
    assert (validation["passed"], validation["rejected"]) == (44, 1)
    assert validation["checks"][-1]["failing"] == 1
    with Ledger.at(f"sqlite:///{folder / 'poisonwatch.db'}") as ledger, ledger.read() as connection:
        status = connection.execute(
            select(rows.c.status, rejections.c.reason).join(rejections)
        ).all()
    assert status == [("rejected", rejected.reason)]


def test_a_bad_row_is_not_cleared_and_is_tried_again_under_other_settings(
    audited: tuple[Path, AuditOutcome, list[str]], tmp_path: Path
) -> None:
    """Not again under the same; and what a person decided on it can be taken back."""
    folder, outcome, _ = audited
    write_rows(tmp_path / "bad.jsonl", [BAD])
    with pytest.raises(NotClearedError, match="rejected"):
        require_cleared([tmp_path / "bad.jsonl"], folder / "audit.yaml")
    assert audit_again(folder, "same").summary["counts"]["pulled"] == 0
    again = audit_again(folder, "other", stride={"max_tokens": 500})
    # What other settings judged is judged again, too.
    assert again.summary["counts"]["pulled"] == 45
    assert again.summary["counts"]["new"] == 44
    assert [row.position for row in again.rejected] == [PLACE]
    name = outcome.rejected[0].example_id
    with Ledger.at(f"sqlite:///{folder / 'poisonwatch.db'}") as ledger:
        record_decision(ledger, name, "benign")
        record_decision(ledger, name, "unsure")
        with ledger.read() as connection:
            of_row = select(rows.c.status).where(rows.c.id == bytes.fromhex(name))
            assert connection.execute(of_row).scalar_one() == "rejected"
