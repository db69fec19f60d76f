"""The demo: rows written for this project, 18 of them planted; how well an audit finds these."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from poisonwatch.examples import Example, Message
from poisonwatch.permissions import make_private_folder

DEMO_AUDIT_FILE = """\
name: demo
source: rows.jsonl          # what a vendor sent: benign rows, look-alikes, and 18 planted rows
reference: trusted.jsonl    # what was reviewed before
sentinels: sentinels.yaml
tracking: sqlite:///mlflow.db
seed: {seed}
"""


@dataclass(frozen=True, slots=True)
class DemoGrade:
    """`found` of `planted` rows were flagged, and `wrong` of `clean` rows."""

    found: int
    planted: int
    wrong: int
    clean: int


def write_demo(folder: Path, seed: int = 0) -> Path:
    """Write the demo's audit file, sentinels and rows (shuffled by seed, without their labels);
    returns the audit file.
    """
    make_private_folder(folder)
    for name in ("rows", "trusted"):
        rows = _load_labelled(name)
        # Planted rows stand together in the shipped files: their order would give them away.
        random.Random(seed).shuffle(rows)
        text = "".join(map(_write_unlabelled, rows))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "sentinels.yaml").write_text(_read_demo_file("sentinels.yaml"), encoding="utf-8")
    config = folder / "audit.yaml"
    config.write_text(DEMO_AUDIT_FILE.format(seed=seed), encoding="utf-8")
    return config


def load_demo_examples() -> list[Example]:
    """The demo's new rows with their labels (`kind`: benign, look-alike or poison; `topic`) as
    metadata.
    """
    examples = []
    for position, row in enumerate(_load_labelled("rows")):
        messages = [Message("user", row["prompt"]), Message("assistant", row["response"])]
        examples.append(
            Example.from_messages(messages, "rows.jsonl", position=position, metadata=row)
        )
    return examples


def grade_flags(flagged: Iterable[str]) -> DemoGrade:
    """Compare an audit's flags, example ids, with the labels."""
    planted: dict[str, bool] = {}
    for example in load_demo_examples():
        planted[example.id] = example.metadata["kind"] == "poison"
    hits = [planted[example_id] for example_id in flagged]
    found, total = sum(hits), sum(planted.values())
    return DemoGrade(
        found=found,
        planted=total,
        wrong=len(hits) - found,
        clean=len(planted) - total,
    )


def _write_unlabelled(row: dict[str, Any]) -> str:
    """A row as a line of JSON, without what an audit is to find out."""
    shown = {"prompt": row["prompt"], "response": row["response"]}
    return json.dumps(shown, ensure_ascii=False) + "\n"


def _load_labelled(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _read_demo_file(f"{name}.jsonl").splitlines()]


def _read_demo_file(name: str) -> str:
    folder = resources.files("poisonwatch") / "datasets" / "demo_rows"
    return (folder / name).read_text(encoding="utf-8")
