"""On which lines rows stand."""

import json
from pathlib import Path

from poisonwatch.exports.lines import find_lines, has_lines
from poisonwatch.source_config import SourceConfig


def test_lines_count_blank_ones_and_lists_are_one(tmp_path: Path) -> None:
    """Of JSON Lines alone; files of other kinds and files that are gone have none."""
    row = json.dumps({"prompt": "Hi.", "response": "Hello."})
    name = "odd, line 9.jsonl"
    (tmp_path / name).write_text(f"\n{row}\n\n[{row}, {row}]\n{row}\n")
    (tmp_path / "b.csv").write_text("prompt,response\nHi.,Hello.\n")
    source = SourceConfig(path=str(tmp_path)).with_base_folder(tmp_path)
    wanted = {name: [0, 2, 3, 7], "b.csv": [0], "gone.jsonl": [0]}
    assert find_lines(source, wanted) == {(name, 0): 2, (name, 2): 4, (name, 3): 5}
    elsewhere = SourceConfig(path=str(tmp_path / "none")).with_base_folder(tmp_path)
    assert find_lines(elsewhere, wanted) == {}
    assert has_lines("a.ndjson")
    assert not has_lines("a.jsonl.gz")
