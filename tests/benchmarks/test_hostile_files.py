"""Files made to harm: each is read, or refused in one line, in less than a gigabyte."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hostile_files import KINDS
from paths import ROOT
from slow_tests import slow

# What takes the longest is left to the script: more of the same.
SLOW = {
    "json: brackets",
    "json: deep and closed",
    "json: a conversation of a million turns",
    "json: empty lists",
    "jsonl: brackets",
    "jsonl: a conversation of a million turns",
    "jsonl: empty lists",
    "jsonl with a million keys",
    "jsonl with other keys in every row",
    "gz of rows of nothing",
    "parquet with a row of a gigabyte",
    "parquet with a page of a gigabyte",
    "parquet with a million rows of nothing",
    "arrow with a batch of a gigabyte",
    "arrow with a packed bomb",
    "a sparse file",
}
PARTS = 12


def split_kinds() -> list[Any]:
    """All kinds that are not slow, some at a time. Every twelfth is in the first part, which is always
    tried: the others tell little more, and take a process each.
    """
    kinds = [kind for kind in KINDS if kind not in SLOW]
    parts = [pytest.param(kinds[start::PARTS], marks=slow) for start in range(1, PARTS)]
    return [kinds[::PARTS], *parts]


@pytest.mark.parametrize("kinds", split_kinds(), ids=lambda kinds: kinds[0])
def test_hostile_files_are_read_or_refused_in_one_line(kinds: list[str]) -> None:
    """No traceback, no crash, no gigabyte, nothing run."""
    script = ROOT / "benchmarks" / "hostile_files.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--json", *kinds],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    readings = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [reading["kind"] for reading in readings] == kinds
    for reading in readings:
        assert reading["code"] in (0, 2), reading
        assert len(reading["lines"]) == 1, reading
        assert len(reading["lines"][0]) < 2000, reading
        assert reading["mib"] < 1000, reading
