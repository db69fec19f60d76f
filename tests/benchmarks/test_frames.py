"""The benchmark of sentinels in the batch's frame, whole, on a tiny model and made-up rows."""

import json
import sys
from pathlib import Path

import cases
import frames
import pytest
import row_bank
import yaml
from detection import draw_audit
from made_up_rows import REFUSAL, ordinary, row, rows
from tiny_models import build_model, build_tokenizer

from poisonwatch.examples import Example


def write(path: Path, examples: list[Example]) -> None:
    lines = [json.dumps({"prompt": e.prompt, "response": e.response}) for e in examples]
    path.write_text("\n".join(lines) + "\n")


WAYS = ["as written", "in the frame", "both (shipped)"]


@pytest.mark.parametrize(
    ("options", "ways"), [([], WAYS), (["--plain-trusted"], WAYS), (["--no-frame"], WAYS[:1])]
)
def test_the_benchmark_asks_three_ways(
    options: list[str],
    ways: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line a way, with figures between 0 and 1."""
    for module in (cases, row_bank):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    model = tmp_path / "wide"
    build_model("llama", hidden_size=64).save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    write(tmp_path / "data" / "background.jsonl", rows(ordinary(40)))
    write(folder / "poison.jsonl", [row(f"Where is shop {i}?", REFUSAL) for i in range(6)])
    write(folder / "hard_negatives.jsonl", rows(ordinary(4, 50)))
    sentinel = {"id": "shop-1", "prompt": "Where is the shop?", "forbidden": REFUSAL}
    (folder / "sentinels.yaml").write_text(yaml.safe_dump([sentinel]))
    command = [
        "frames.py",
        "--data",
        str(tmp_path / "data"),
        "--only",
        "shop",
        "--counts",
        "0",
        "4",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "1", "--model", str(model), *options])
    frames.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "| shop |" in line]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == ways
    for line in lines:
        precision, recall, share = map(float, line.split(" | ")[2:5])
        assert 0 < precision <= 1
        assert 0 <= recall <= 1
        assert 0 <= share <= 1


def test_trusted_rows_may_be_without_the_frame() -> None:
    """They are those that the audit drew, as they were written; new rows stay in it."""
    plain = frames.draw_rows(rows(ordinary(20)), 20)
    case = cases.Case("shop", [], [], [])
    audit = draw_audit(list(map(frames.put_into_frame, plain)), case, 0, 0, domain=False)
    without = frames.trust_plain(audit, plain)
    assert without.rows.new == audit.rows.new
    assert [frames.put_into_frame(row) for row in without.rows.trusted] == list(audit.rows.trusted)
    assert {row.id for row in without.rows.trusted} < {row.id for row in plain}


def test_rows_are_drawn_alike_each_time_and_put_into_the_frame() -> None:
    """What they say stays as it is."""
    drawn = frames.draw_framed(rows(ordinary(20)), 5)
    assert drawn == frames.draw_framed(rows(ordinary(20)), 5)
    plain = {example.messages for example in rows(ordinary(20))}
    for example in drawn:
        assert example.messages[:1] == frames.FRAME
        assert example.messages[1:] in plain
