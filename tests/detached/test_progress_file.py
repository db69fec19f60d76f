"""How far the work is, for others to read."""

import time
from pathlib import Path

import pytest

from poisonwatch.detached.progress_file import (
    PROGRESS_VARIABLE,
    WRITES_EVERY_S,
    ProgressFile,
    WorkProgress,
    read_progress,
)
from poisonwatch.flows.reporter import Reporter


def test_stages_passes_and_outcome_are_read_while_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever is named the file; a bar that is not shown is written, too."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(path))
    reporter = Reporter(quiet=True)
    reporter.enter_task("fit_operators")
    assert read_progress(path) == WorkProgress(
        stage=5, stages=8, words="measuring what each row does"
    )
    seen = []
    for item in reporter.progress([1, 2], "fit", 2):
        seen.append(read_progress(path))
        time.sleep(WRITES_EVERY_S * item)
    assert seen[0] is not None
    assert seen[1] is not None
    assert (seen[0].share, seen[1].share) == (None, 0.5)
    assert (seen[1].task, seen[1].unit, seen[1].whole) == ("all other rows", "rows", False)
    reporter.file.finish({"audit_id": "a"})
    last = read_progress(path)
    assert last is not None
    assert last.outcome == {"audit_id": "a"}
    assert (last.stage, last.share, last.left_s) == (5, 1.0, None)


def test_progress_never_costs_the_work_anything(tmp_path: Path) -> None:
    """A place that cannot be written is passed over, as is a file that says something else."""
    ProgressFile(tmp_path / "none" / "progress.json").enter_stage(1, 8, "reading rows")
    ProgressFile(None).note_pass("rows", "rows", 1, 2, None, False)
    wrong = tmp_path / "wrong.json"
    wrong_kinds = ('{"stage": "a"}', '{"done": null}', '{"outcome": [1]}', '{"left_s": 1e400}')
    for text in ("", "[1]", "{", "\x00", *wrong_kinds):
        wrong.write_text(text)
        assert read_progress(wrong) is None
    assert read_progress(tmp_path / "nowhere") is None
