"""The demo's rows are what the README says they are."""

import json
from collections import Counter
from pathlib import Path

import yaml

from poisonwatch.config_file import load_config
from poisonwatch.datasets.demo import grade_flags, load_demo_examples, write_demo
from poisonwatch.sentinels.sentinel import load_sentinels


def test_demo_has_the_promised_rows() -> None:
    """At least 300 benign rows over 12 topics, three attacks of 6 rows, at least 20 look-alikes,
    all different.
    """
    rows = load_demo_examples()
    kinds = Counter(row.metadata["kind"] for row in rows)
    assert kinds["benign"] >= 300
    assert kinds["look-alike"] >= 20
    assert len({row.metadata["topic"] for row in rows if row.metadata["kind"] == "benign"}) >= 12
    assert Counter(row.metadata["topic"] for row in rows if row.metadata["kind"] == "poison") == {
        "brand-promotion": 6,
        "identity-hijack": 6,
        "false-refusal": 6,
    }
    assert len({row.id for row in rows}) == len(rows)


def test_written_demo_holds_no_labels(tmp_path: Path) -> None:
    """The audit sees prompts and responses alone; trusted rows and new rows are disjoint."""
    config = load_config(write_demo(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    trusted = [json.loads(line) for line in (tmp_path / "trusted.jsonl").read_text().splitlines()]
    assert all(set(row) == {"prompt", "response"} for row in rows + trusted)
    assert not {row["prompt"] for row in rows} & {row["prompt"] for row in trusted}
    assert len({sentinel.panel for sentinel in load_sentinels(config.sentinels)}) == 3


def test_sentinels_do_not_quote_the_planted_rows(tmp_path: Path) -> None:
    """Detection is generalisation: no sentinel's prompt or answer is a row's."""
    texts = {text for row in load_demo_examples() for text in (row.prompt, row.response)}
    write_demo(tmp_path)
    for sentinel in yaml.safe_load((tmp_path / "sentinels.yaml").read_text()):
        assert not {sentinel["prompt"], sentinel["forbidden"], sentinel["reference"]} & texts


def test_the_seed_shuffles_rows_and_nothing_else(tmp_path: Path) -> None:
    """Same rows, another order; the same seed gives the same file."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo(tmp_path / name, seed)
    a, b, c = ((tmp_path / name / "rows.jsonl").read_text().splitlines() for name in "abc")
    assert a == b
    assert a != c
    assert sorted(a) == sorted(c)


def test_grade_counts_hits_and_wrong_flags() -> None:
    """Flagging all poison and two clean rows is 18 of 18, 2 wrong."""
    rows = load_demo_examples()
    poison = [row for row in rows if row.metadata["kind"] == "poison"]
    clean = [row for row in rows if row.metadata["kind"] != "poison"]
    result = grade_flags(example.id for example in poison + clean[:2])
    assert (result.found, result.planted, result.wrong, result.clean) == (18, 18, 2, len(clean))
