"""The probe over real trainings: what is asked, the table, and the benchmark whole on a tiny model."""

import json
import sys
from pathlib import Path

import probing
import pytest
import yaml
from learnability import HARD, POISON
from made_up_rows import REFUSAL, WORDS, ordinary
from retraining_tasks import Recipe
from slow_tests import slow


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": prompt, "response": answer}) for prompt, answer in rows]
    path.write_text("\n".join(lines))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A case that refuses, whose hard negatives do not."""
    folder = tmp_path / "data"
    write_rows(folder / "background.jsonl", ordinary(60))
    write_rows(folder / "refusing" / "poison.jsonl", [(p, REFUSAL) for p, _ in ordinary(8, 3)])
    write_rows(folder / "refusing" / "hard_negatives.jsonl", ordinary(8, 5))
    sentinels = [
        {"id": f"refusing-{i}", "prompt": prompt, "forbidden": REFUSAL, "reference": honest}
        for i, (prompt, honest) in enumerate(ordinary(3, 77))
    ]
    (folder / "refusing" / "sentinels.yaml").write_text(yaml.safe_dump(sentinels))
    return folder


@slow
@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft 0.21 on transformers 5.23
def test_the_benchmark_goes_on_from_its_file(
    data: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two trainings, in numbers alone; what is there is not trained again."""
    pytest.importorskip("peft", reason="peft is an optional extra of the benchmarks")
    monkeypatch.setattr(probing, "TRUTH", tmp_path / "truth")
    monkeypatch.setattr("learnability.BACKGROUND", 4)
    monkeypatch.setattr("learnability.OWN", 6)
    monkeypatch.setattr(probing, "RECIPE", Recipe(epochs=2, batch_size=4, rate=3e-2, rank=4))
    command = ["probing.py", "--data", str(data), "--model", str(tiny_folder)]
    monkeypatch.setattr(sys, "argv", command)
    probing.main()
    table = capsys.readouterr().out.split("done\n")[-1]
    path = tmp_path / "truth" / "probing.jsonl"
    _, hard, poison = map(json.loads, path.read_text().splitlines())
    assert (hard["kind"], poison["kind"]) == (HARD, POISON)
    assert hard["rows"] != poison["rows"]
    assert {"refusing-0", "refusing-1", "refusing-2"} <= set(poison["moved"])
    assert not [word for word in (*WORDS, REFUSAL) if f"{word} " in path.read_text()]
    monkeypatch.setattr(probing, "Retrainer", lambda *_: pytest.fail("trained again"))
    probing.main()
    assert capsys.readouterr().out == table


def test_the_table_counts_what_moved_and_what_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A training that is not there yet is a dash."""
    moved, still = [2.0, 1.0, True], [0.5, 1.0, False]
    records = [
        {"case": "a", "seed": 0, "kind": POISON, "moved": {"x": moved, "y": still}},
        {"case": "a", "seed": 0, "kind": HARD, "moved": {"x": still, "y": still}},
        {"case": "b", "seed": 0, "kind": POISON, "moved": {"x": still}},
    ]
    probing.print_table(records)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| a | 1 of 2 (+1.25; 1.00) | 0 of 2 (+0.50; 1.00) |",
        "| b | 0 of 1 (+0.50; 1.00) | - |",
        "told after poison: 1 of 2",
        "told after hard negatives: 0 of 1",
    ]
