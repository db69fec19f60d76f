"""An audit that was killed, or failed, is taken up where it stopped, and comes to the same bytes."""

import json
import math
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from audits import benign, planted, write_audit, write_rows
from notes import Notes
from slow_tests import slow

from poisonwatch.checkpoints import passes as trail
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.engine import Engine
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.run_directory import write as runs

RESULTS = (
    "scores.parquet",
    "coefficients.parquet",
    "flags.jsonl",
    "evidence.jsonl",
    "operators.safetensors",
)
STRIDE = {"background": 16, "shortlist": 8, "token_budget": 600}
FITS: dict[str, dict[str, Any]] = {
    "one subset a row": {"stride": STRIDE},
    "shared subsets": {"stride": {**STRIDE, "K": 20}},
    "enough trusted rows": {"stride": STRIDE, "reference": "many.jsonl"},
    "trained": {
        "stride": {
            **STRIDE,
            "K": 20,
            "fit": "sgd",
            "training": {"epochs": 1, "checkpoint_every": 1},
        }
    },
}
QUICK_FITS = ("enough trusted rows", "trained")


def list_fits() -> list[Any]:
    """All settings; those that are tried only now and then are marked so."""
    return [
        pytest.param(settings, id=name, marks=() if name in QUICK_FITS else slow)
        for name, settings in FITS.items()
    ]


FITTED = [
    "check_sentinels: taken from an interrupted attempt",
    "fit_operators: taken from an interrupted attempt",
]
RECOVERED = "recover: taken from an interrupted attempt"
# Records come to coefficients anew: they are kept themselves.
ALL = [*FITTED, "gather_evidence: taken from an interrupted attempt"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many conversations go through each pass of the model from now on, continuations apart."""
    met: list[int] = []
    run = FrozenModel._run

    def counted(self: FrozenModel, batch: Any) -> torch.Tensor:
        met.append(len(batch.rows))
        return run(self, batch)

    monkeypatch.setattr(FrozenModel, "_run", counted)
    return met


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_passes(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit of 27 rows with many flags; every test audits all of them again."""
    folder = tmp_path_factory.mktemp("resume")
    write_audit(
        folder,
        tiny_folder,
        rows=benign(24) + planted(),
        detection={"false_discovery_rate": 0.9},
        stride=STRIDE,
        tracking="none",
    )
    write_rows(folder / "many.jsonl", benign(110, start=200))
    (folder / "other.yaml").write_text(
        yaml.safe_dump(
            [{"id": "shop", "prompt": "Where do I buy item 7?", "forbidden": "Buy from Velmora."}]
        )
    )
    return folder


@pytest.fixture(scope="module")
def whole(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[int]]:
    """What an audit that nothing disturbs comes to, and its passes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        passes = count_passes(monkeypatch)
        audit(folder, folder / "whole")
    return results(folder / "whole"), passes


def audit(folder: Path, run_dir: Path, **settings: Any) -> list[str]:
    """Audit all rows of the folder again, with other settings; returns what is said of earlier
    attempts.
    """
    config = yaml.safe_load((folder / "audit.yaml").read_text())
    (folder / "again.yaml").write_text(yaml.safe_dump({**config, **settings}))
    notes = Notes()
    audit_inline(load_config(folder / "again.yaml"), run_dir, notes, again=True)
    return [line for line in notes.lines if "interrupted" in line]


def killed(arm: Callable[[], None], folder: Path, run_dir: Path, **settings: Any) -> None:
    """Run an audit that keeps every batch in a child process, which kills itself where it is armed
    to; it must have come to it.
    """
    child = os.fork()
    if child == 0:
        try:
            arm()
            trail.EVERY_S, trail.SHARE = 0.0, math.inf
            audit(folder, run_dir, **settings)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the audit came to its end"
    assert os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_pass(number: int) -> Callable[[], None]:
    """In one of the model's passes, counted from zero."""

    def arm() -> None:
        left, run = number, FrozenModel._run

        def fatal(self: FrozenModel, batch: Any) -> torch.Tensor:
            nonlocal left
            left -= 1
            if left < 0:
                die()
            return run(self, batch)

        FrozenModel._run = fatal  # type: ignore[method-assign]

    return arm


def before(stage: str) -> Callable[[], None]:
    """When a stage is to begin."""

    def arm() -> None:
        call = Engine.__call__

        def fatal(self: Engine, task: Any, *args: Any) -> Any:
            if task.name == stage:
                die()
            return call(self, task, *args)

        Engine.__call__ = fatal  # type: ignore[method-assign]

    return arm


def results(run_dir: Path) -> dict[str, Any]:
    """The files by name; of a safetensors file, whose header is in no order, header and numbers."""
    found: dict[str, Any] = {}
    for name in RESULTS:
        # Coefficients have a file of their own where rows share subsets.
        if name != "coefficients.parquet" or (run_dir / name).exists():
            found[name] = (run_dir / name).read_bytes()
    operators = found["operators.safetensors"]
    start = 8 + int.from_bytes(operators[:8], "little")
    return found | {"operators.safetensors": (json.loads(operators[8:start]), operators[start:])}


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "work").rglob("*") if path.is_file())


@pytest.mark.parametrize("settings", list_fits())
def test_a_killed_audit_comes_to_the_same_bytes(
    folder: Path, tmp_path: Path, cache: Path, settings: Any, passes: list[int]
) -> None:
    """Killed in the fit, then once more after recovery; only the last stage's passes are left to
    do.
    """
    audit(folder, tmp_path / "whole", **settings)
    whole = list(passes)
    shutil.rmtree(cache)
    killed(in_pass(len(whole) // 4), folder, tmp_path / "killed", **settings)
    killed(before("gather_evidence"), folder, tmp_path / "again", **settings)
    passes.clear()
    reused = list(FITTED)
    if "K" in settings["stride"]:
        reused.append(RECOVERED)
    assert audit(folder, tmp_path / "resumed", **settings) == reused
    assert results(tmp_path / "resumed") == results(tmp_path / "whole")
    assert len(passes) < len(whole)
    assert passes == whole[len(whole) - len(passes) :]
    assert kept(cache) == []


@pytest.mark.parametrize(("where", "begins"), [(4, 4), (9, 6)], ids=["sample", "shard"])
def test_a_fit_goes_on_after_its_last_shard(
    folder: Path, tmp_path: Path, where: int, begins: int, passes: list[int], whole: Any
) -> None:
    """What went through the model before it was killed does not go through it again; the pass that
    it was killed in does, and the others of a shard of records that was not whole.
    """
    killed(in_pass(where), folder, tmp_path / "killed")
    said = audit(folder, tmp_path / "resumed")
    assert passes == whole[1][begins:]
    assert results(tmp_path / "resumed") == whole[0]
    assert [text.partition(":")[0] for text in said] == ["check_sentinels", "fit_operators"]
    assert "gone on with after" in said[1]


def test_an_audit_killed_after_the_fit_does_not_fit_again(
    folder: Path, tmp_path: Path, passes: list[int], whole: Any
) -> None:
    """Left is what comes after: not one of the 67 rows, nor of the sentinels' 6 answers."""
    killed(before("recover"), folder, tmp_path / "killed")
    assert audit(folder, tmp_path / "resumed") == FITTED
    assert (
        sum(passes) == sum(whole[1]) - 3 - 16 - 67 - 6
    )  # the sentinels' check, the basis, the rows, and the sentinels' answers
    assert results(tmp_path / "resumed") == whole[0]


def test_an_audit_whose_record_failed_goes_on_there(
    folder: Path, tmp_path: Path, cache: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, here a device that always is; with room again, nothing goes through the
    model any more.
    """
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with monkeypatch.context() as full:
        full.setattr(
            runs, "write_flags", lambda folder, flags: Path("/dev/full").write_text("x" * 10_000)
        )
        with pytest.raises(OperationError, match="cannot be written"):
            audit(folder, tmp_path / "failed")
    passes.clear()
    assert audit(folder, tmp_path / "resumed") == ALL
    assert passes == []
    assert kept(cache) == []


def test_nothing_is_taken_from_another_audit(folder: Path, tmp_path: Path) -> None:
    """Other settings, other sentinels; of the same audit, all is."""
    killed(before("record"), folder, tmp_path / "killed")
    for name, change in {"seed": 1, "sentinels": "other.yaml"}.items():
        assert audit(folder, tmp_path / name, **{name: change}) == []
    assert audit(folder, tmp_path / "same") == ALL


class _Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_kept_files_that_somebody_replaced_run_nothing(
    folder: Path, tmp_path: Path, cache: Path, passes: list[int], whole: Any
) -> None:
    """Each is a pickle that would leave a mark: all is worked out anew."""
    killed(before("record"), folder, tmp_path / "killed")
    assert len(kept(cache)) > 5
    for path in kept(cache):
        path.write_bytes(pickle.dumps(_Exploit(tmp_path / "executed")))
    assert audit(folder, tmp_path / "resumed") == []
    assert passes == whole[1]
    assert results(tmp_path / "resumed") == whole[0]
    assert not (tmp_path / "executed").exists()
