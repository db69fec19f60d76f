"""The notebook of the docs runs as it stands, but for its model: a tiny one."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from paths import ROOT
from slow_tests import slow

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@slow
def test_the_notebook_runs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel of its own, every cell; it leaves nothing in its folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("model = ")
    cells[0].source = f"model = {str(tiny_folder)!r}"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=None, resources=resources).execute()
    shown = [output for cell in cells for output in cell.outputs if "data" in output]
    assert "rows flagged" in shown[1]["data"]["text/html"]
    assert "384 rows" in shown[-1]["data"]["text/plain"]
    assert list(tmp_path.iterdir()) == []


def test_what_the_notebook_shows_is_of_the_default_model() -> None:
    """Its outputs are kept: readers see what an audit finds."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = str([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert "19 of 384 rows flagged" in text  # 18 of them planted
    assert "stderr" not in text
    assert not re.search(r"/(tmp|home|work|site-packages)/", text)
