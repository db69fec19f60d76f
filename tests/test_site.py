"""The docs site builds without a warning, holds what the code says, and shows commands and errors
that there are.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from paths import ROOT

import poisonwatch
from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import app, main, read_commands
from poisonwatch.source_config import SourceConfig

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def list_blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a language, "" for the shell's, those within lists included."""
    text = page.read_text(encoding="utf-8")
    pattern = rf"^ *```{language}\n(.*?)^ *```$"
    return re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE)


def list_commands(page: Path) -> list[list[str]]:
    """The words of each `poisonwatch ...` in the shell blocks of a page; of a block with prompts
    and what came after them, of the prompts.
    """
    commands = []
    for block in list_blocks(page):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] or lines
        commands += [line for line in typed if line.startswith("poisonwatch ")]
    return [shlex.split(command, comments=True)[1:] for command in commands]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it: what MkDocs warns of is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Neither scripts nor styles, fonts or pictures."""
    for page in site.glob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)|<link[^>]* href=\"([^\"]+)",
            page.read_text(encoding="utf-8"),
        )
        places = {script or style for script, style in loaded}
        assert not {place for place in places if place.startswith(("http", "//"))}, page.name


def test_the_reference_has_every_command_setting_and_name(site: Path) -> None:
    """It is made of the code."""
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for name, _, example in read_commands("flows.cli.audit"):
        assert f'id="poisonwatch-{name}"' in commands
        assert example.split("`")[1].split(" -")[0] in commands
    settings = (site / "settings.html").read_text(encoding="utf-8")
    for name in AuditConfig.model_fields:
        assert name == "replay" or f"<code>{name}</code>" in settings
    assert 'id="stride-training"' in settings
    names = (site / "python.html").read_text(encoding="utf-8")
    for name in {*poisonwatch.__all__} - {"AuditConfig", "__version__"}:
        assert f">{name}<" in names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_are_shown_can_be_given(page: Path) -> None:
    """The command line takes every one, options and all."""
    for words in list_commands(page):
        app.parse_args(words, print_error=False, exit_on_error=False)


def test_the_tutorial_begins_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands that need no model run, and the audit file that it shows is one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = ROOT / "poisonwatch" / "datasets" / "demo_rows" / "rows.jsonl"
    (tmp_path / "data" / "rows.jsonl").write_bytes(rows.read_bytes())
    commands = list_commands(DOCS / "tutorial.md")
    light = [words for words in commands if words[0] in {"check", "init", "packs"}]
    assert len(light) >= 3
    for words in light:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert not stopped.value.code, words
    assert "384 in rows.jsonl" in capsys.readouterr().out
    (shown,) = list_blocks(DOCS / "tutorial.md", "yaml")
    written = tmp_path / "my-audit" / "audit.yaml"
    assert {path.name for path in written.parent.iterdir()} >= {"rows", "trusted"}
    written.write_text(shown)
    assert load_config(written).name == "my-audit"


def test_stores_that_are_shown_are_sources() -> None:
    """Each line is one."""
    (shown,) = list_blocks(DOCS / "stores.md", "yaml")
    for line in shown.splitlines():
        source = yaml.safe_load(line)["source"]
        given = {"path": source} if isinstance(source, str) else source
        assert SourceConfig.model_validate(given).address


def list_texts() -> Iterator[str]:
    """The texts in the code, each with the pieces that Python joins; what a text is filled with is
    a gap.
    """
    folders = ("poisonwatch", "flows", "dashboards", "tasks")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "\0"
                    for part in node.values
                )


def test_errors_that_are_explained_are_raised() -> None:
    """Each part of a line on the page of errors stands in the code."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    explained = text.split("## No error, and yet")[0]
    parts = re.findall(r"^\| `([^`]+)` \|", explained, flags=re.MULTILINE)
    assert len(parts) >= 20
    texts = "\1".join(list_texts())
    assert [part for part in parts if part not in texts] == []
