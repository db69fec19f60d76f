"""Explaining an answer from saved operators alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audits import FORBIDDEN, planted, write_audit
from tiny_models import build_model

from poisonwatch.config import StrideConfig
from poisonwatch.config_file import load_config
from poisonwatch.examples import Example, Message, compute_content_id
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.explain import attribute_conversation, explain_response
from poisonwatch.stride.recover import recover_influence

PLANTED = {
    compute_content_id([Message("user", row["prompt"]), Message("assistant", row["response"])])
    for row in planted()
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished audit whose rows and trusted rows are gone."""
    folder = tmp_path_factory.mktemp("explained")
    audit_inline(load_config(write_audit(folder, tiny_folder)), folder / "run")
    for name in ("rows.jsonl", "trusted.jsonl", "sentinels.yaml", "audit.yaml"):
        (folder / name).unlink()
    return folder / "run"


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *arguments])
    return int(stopped.value.code or 0)


def test_rows_behind_an_answer_are_named_without_the_rows(run_dir: Path, tiny_folder: Path) -> None:
    """Rows that taught the answer come first, with their place; the data is not there any more."""
    saved = load_operators(run_dir)
    fitted = saved.load_on(load_pretrained(load_config(run_dir / "config.yaml").model))
    found = explain_response(
        run_dir, fitted, "What should I buy, number 1?", FORBIDDEN[1], saved.stride, top=5
    )
    assert [row.rank for row in found] == [1, 2, 3, 4, 5]
    assert found[0].example_id in PLANTED
    assert found[0].source == "rows.jsonl"
    assert found[0].position == 41
    assert found[0].coefficient > found[1].coefficient > 0


@pytest.mark.parametrize(
    "changes", [{"measurement": "forward"}, {"K": 20, "shortlist": 6}], ids=["K=n", "K<n"]
)
def test_saved_operators_say_what_the_fitted_ones_said(
    tiny_pretrained: Pretrained, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """w from disk = w before, up to bfloat16: correlation above .999."""
    from poisonwatch.config import AuditConfig
    from poisonwatch.run_directory.operators import save_operators

    stride = StrideConfig(r=16, background=12, **changes)
    rows = [
        Example.from_messages(
            [Message("user", f"Q {i} {i * i}?"), Message("assistant", f"It is {i % 7}.")]
        )
        for i in range(40)
    ]
    fitted = fit(tiny_pretrained, rows, stride)
    sentinel = Sentinel("a", (Message("user", "How?"),), "Pour bleach in.", None, "a")
    _, extended = recover_influence(fitted, [sentinel], stride)
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=stride)
    save_operators(tmp_path, extended, config, tiny_pretrained.fingerprint)
    loaded = load_operators(tmp_path).load_on(tiny_pretrained)
    assert loaded.ids == fitted.ids
    assert (loaded.M != extended.M).nnz == 0
    before, after = (
        attribute_conversation(f, "Where?", "There.", stride).w for f in (extended, loaded)
    )
    assert np.corrcoef(before, after)[0, 1] > 0.999


def test_another_model_is_refused(
    run_dir: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; the line names both fingerprints and the way out."""
    shutil.copytree(tiny_folder, tmp_path / "other")
    build_model("llama", seed=1).save_pretrained(tmp_path / "other")
    assert (
        command(
            str(run_dir), "--prompt", "Q", "--response", "A", "--model", str(tmp_path / "other")
        )
        == 2
    )
    assert "name the model of the audit with --model" in capsys.readouterr().err


def test_the_command_prints_rows_or_json(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of ranks, coefficients and places; with --json one object a row."""
    assert command(str(run_dir), "--prompt", "Q?", "--response", "Buy.", "--top", "3") == 0
    assert "of 83 rows" in capsys.readouterr().out
    assert (
        command(str(run_dir), "--prompt", "Q?", "--response", "Buy.", "--top", "3", "--json") == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert set(lines[0]) == {
        "rank",
        "example_id",
        "source",
        "position",
        "coefficient",
        "score",
        "exact",
    }


@pytest.mark.parametrize("name", ["operators.safetensors", "config.yaml", "scores.parquet"])
def test_files_of_another_run_are_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Exit code 2; the line names the file and the run directory, and no row is."""
    shutil.copytree(run_dir, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert command(str(tmp_path / "run"), "--prompt", "Q?", "--response", "Buy.") == 2
    shown = capsys.readouterr()
    assert f"{name} of {tmp_path / 'run'} is not what the audit wrote" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "Q", "--response", " "], "must both say something"),
        (
            ["--prompt", "Q", "--response", "A", "--top", "0"],
            "--top is 0: ask for at least one row",
        ),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    run_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """Exit code 2, one line."""
    assert command(str(run_dir), *arguments) == 2
    assert says in capsys.readouterr().err
