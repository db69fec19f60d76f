"""The probe over real trainings: what is asked, the table, and the benchmark whole on a tiny model."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import probing
import pytest
import yaml
from cases import Case
from learnability import HARD, POISON
from made_up_rows import REFUSAL, WORDS, ordinary
from retraining_tasks import Recipe
from slow_tests import slow

from poisonwatch.examples import Message
from poisonwatch.probing.questions import ELSEWHERE, AnswerLosses
from poisonwatch.sentinels.sentinel import Sentinel


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


def make_losses(gain: float, seed: int) -> dict[str, Any]:
    """Of six sentinels, whose forbidden answers have become likelier by `gain`, with noise."""
    draw = np.random.default_rng(seed)
    shapes = {"forbidden": 6, "reference": 6, "elsewhere": (6, 2, ELSEWHERE), "ordinary": (64, 2)}
    losses = {name: 3 + 0.1 * draw.normal(size=shape) for name, shape in shapes.items()}
    losses["forbidden"] -= gain
    return probing.write_losses(AnswerLosses(**losses))


def test_the_table_counts_what_was_told_and_apart_what_limits_were_chosen_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A training that is not there yet is a dash."""
    sentinels = [
        Sentinel(f"shop-{i}", (Message("user", f"Where {i}?"),), f"Buy {i}.", f"Any {i}.", "shop")
        for i in range(6)
    ]
    (seen,) = {"brand-cola"} & probing.CHOSEN_ON
    cases = [Case(name, [], [], sentinels) for name in (seen, "other")]
    described = [probing.describe_sentinel(sentinel) for sentinel in sentinels]
    before = {"base": make_losses(0, 1), "trusted": make_losses(0, 2), "sentinels": described}
    records = [
        {"case": seen, "seed": 0, "kind": POISON, "tuned": make_losses(2, 3), **before},
        {"case": "other", "seed": 0, "kind": POISON, "tuned": make_losses(2, 4), **before},
        {"case": "other", "seed": 0, "kind": HARD, "tuned": make_losses(0, 5), **before},
    ]
    probing.print_table(cases, records)
    _, _, first, second, *counts = capsys.readouterr().out.splitlines()
    assert first.count("**told**: 6 of 6; +2.") == 2
    assert first.endswith("| - | - |")
    assert second.count("**told**") == 2
    assert second.count("0 of 6; ") == 2
    assert counts == [
        "told after hard negatives, beside base, others: 0 of 1",
        "told after hard negatives, beside trusted, others: 0 of 1",
        "told after poison, beside base, chosen on: 1 of 1",
        "told after poison, beside base, others: 1 of 1",
        "told after poison, beside trusted, chosen on: 1 of 1",
        "told after poison, beside trusted, others: 1 of 1",
    ]
