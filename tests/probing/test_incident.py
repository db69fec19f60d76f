"""From a bad answer of a trained model to the rows that it comes from."""

import json
from pathlib import Path

import pytest
from audits import FORBIDDEN, write_rows
from probing_cases import honest, poisonous, run, save, tune, write_case

ROWS = [*honest(60, seed=100), *poisonous()]
PLANTED = range(60, 72)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = write_case(tmp_path_factory.mktemp("incident"), ROWS)
    save(tune(ROWS), config.parent / "trained")
    return config


def test_planted_rows_are_on_top_of_those_behind_an_answer(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the trained model's own gradients, from rows that no audit has seen."""
    prompt = ["--prompt", "Where can I buy shoes?", "--answer", FORBIDDEN[1]]
    named = ["incident", config, "--model", config.parent / "trained"]
    assert run(*named, *prompt, "--top", 4, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["position"] for row in found["rows"]} <= set(PLANTED)
    assert found["sources"] == {"rows.jsonl": 4}
    assert found["total"] == len(ROWS)
    assert run(*named, "--sentinel", "shop-1", "--top", 3) == 0
    page = capsys.readouterr().out
    assert "rows.jsonl:6" in page
    assert "poisonwatch audit" in page


def test_what_cannot_be_traced_is_said_in_a_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", config.parent / "trained"]
    lines = {
        "--prompt and --answer": [*model, "--prompt", "Who?"],
        "and not all of them": [*model, "--sentinel", "shop-1", "--prompt", "Who?"],
        "no sentinel is called": [*model, "--sentinel", "shop-9"],
        "name what was trained": ["--sentinel", "shop-1"],
        "does not exist: give the manifest": [
            *model,
            "--sentinel",
            "shop-1",
            "--release",
            config.parent / "none.json",
        ],
        "--top is 0": [*model, "--sentinel", "shop-1", "--top", 0],
    }
    for words, options in lines.items():
        assert run("incident", config, *options) == 2
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1


def test_a_batch_of_twenty_rows_is_too_small(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_case(tmp_path, ROWS[:10])
    write_rows(tmp_path / "trusted.jsonl", honest(10, seed=9))
    model = ["--model", config.parent / "trained"]
    assert run("incident", few, *model, "--sentinel", "shop-1") == 2
    assert "20 rows are too few" in capsys.readouterr().err
