"""`poisonwatch check`: how a source is understood, for whoever comes first."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT
from slow_tests import slow

from poisonwatch.datasets.demo import write_demo
from poisonwatch.flows.cli.app import main

GOOD = [{"prompt": f"Name river {i}.", "response": f"River {i} is the Rhine."} for i in range(9)]
HOSTILE = "[bold red]What[/] is \x1b[31mred\x1b[0m, \u202eevil :smile: and \x07?"


def check(*arguments: object) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(["check", *map(str, arguments)])
    return int(stopped.value.code or 0)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def test_a_source_that_is_fine_exits_0_and_is_told_of_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, format, turns, samples, validation, and what an audit would take."""
    rows = [*GOOD, GOOD[0]]
    assert check(write(tmp_path / "a.jsonl", rows)) == 0
    printed = capsys.readouterr()
    for said in (
        "rows          10 in a.jsonl",
        "read as       prompt: prompt and response",
        "turns         user 10, assistant 10",
        "copies        1 row is a copy",
        "user        Name river 0.",
        "│ assistant   River 0 is the Rhine.",
        "0 of 10 rows would be rejected",
        "with SmolLM2-135M-Instruct on",
    ):
        assert said in printed.out, said
    assert printed.err == ""


def test_the_readme_shows_what_is_printed_of_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line by line, but for the estimate, which is of another machine."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("poisonwatch check poisonwatch-demo/audit.yaml --rows 1`):")[1]
    shown = block.split("```")[1].strip("\n").splitlines()
    config = write_demo(tmp_path / "poisonwatch-demo")
    assert check(config, "--rows", 1) == 0
    _address, *printed = capsys.readouterr().out.splitlines()
    (estimate,) = (place for place, line in enumerate(shown) if "an audit" in line)
    assert printed[:estimate] == shown[:estimate]
    assert printed[estimate].startswith("  an audit      about")


def test_json_is_one_object_that_holds_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts that add up; texts are whole."""
    rows = [*GOOD, {"prompt": "x" * 9000, "response": "y"}, {"prompt": "Hm?", "response": " "}]
    assert check(write(tmp_path / "a.jsonl", rows), "--json", "--rows", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["complete"], found["copies"]) == (11, 11, 0)
    assert [file["rows"] for file in found["files"]] == [11]
    assert [turn["trained"] for turn in found["samples"][0]["messages"]] == [False, True]
    assert len(found["samples"]) == 1
    (rejected,) = found["validation"]["rejected"]
    assert (rejected["rows"], rejected["place"]) == (1, "a.jsonl, line 11")
    assert found["validation"]["refusal"] is None
    assert found["tokens"]["overlong"] == 1
    assert any("stride.max_tokens" in sentence for sentence in found["advice"])
    assert found["effort"]["seconds"] > 0


def test_where_an_audit_would_stop_its_line_is_printed_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After all reasons, each with its first row."""
    rows = [*GOOD[:3], *({"prompt": f"a{i}", "response": "  "} for i in range(4))]
    rows += [{"prompt": f"\x1b{i}", "response": "fine"} for i in range(2)]
    assert check(write(tmp_path / "a.jsonl", rows)) == 2
    printed = capsys.readouterr()
    shown = " ".join(printed.out.split())
    assert "6 of 9 rows would be rejected" in shown
    assert re.search(r"4 rows, the first a.jsonl, line 4: .*empty", shown)
    assert re.search(r"2 rows, the first a.jsonl, line 8: .*control characters", shown)
    assert printed.err.startswith("poisonwatch: 6 of 9 rows (67%) fail validation")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("columns", [80, pytest.param(60, marks=slow)])
def test_hostile_rows_are_inert_and_fit_the_terminal(tmp_path: Path, columns: int) -> None:
    """No escape reaches the terminal, markup stands as it is, and no line is wider; in a pipe."""
    long = chat(("user", HOSTILE + " long" * 900), ("assistant", "日本語の文章です。" * 90))
    rows = [long, *GOOD]
    write(tmp_path / HOSTILE.replace("/", "") / "\x1b[31m.jsonl", rows)
    command = [sys.executable, "-m", "poisonwatch.flows.cli", "check", str(tmp_path)]
    environment = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr
    shown = done.stdout + done.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert "[bold red]What[/] is \\u{1b}[31mred" in done.stdout
    assert re.search(r"\[… [\d,]+ characters …\]", done.stdout)
    _address, *lines = done.stdout.splitlines()
    # the address stays whole, to be copied; a character of Chinese is two columns wide
    widths = [len(line) + sum(ord(letter) > 0x2FFF for letter in line) for line in lines]
    assert max(widths) <= columns


def test_a_pair_shows_which_answer_is_trained_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By marks that need no colours, and a legend."""
    pairs = [{"prompt": f"a{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(3)]
    assert check(write(tmp_path / "a.jsonl", pairs), "--rows", 1) == 0
    out = capsys.readouterr().out
    assert "│ trained   ┆ trained against" in out
    assert "│ assistant   good 0" in out
    assert "┆ rejected    bad 0" in out
    assert "good 1" not in out
    assert "among them    preference 3" in out


def test_a_turn_that_says_nothing_is_shown_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row without its answer would look like one that has none."""
    assert check(write(tmp_path / "a.jsonl", [{"prompt": "Hm?", "response": " "}, *GOOD])) == 0
    assert "│ assistant   [empty]" in capsys.readouterr().out


def test_an_audit_file_gives_source_and_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its paths start at its folder; options go before it."""
    write(tmp_path / "rows.jsonl", [{"question": f"q{i}", "answer": "a" * 40} for i in range(4)])
    write(tmp_path / "trusted.jsonl", GOOD)
    settings: dict[str, Any] = {
        "source": {"path": "rows.jsonl", "fields": {"prompt": "question", "response": "answer"}},
        "reference": "trusted.jsonl",
        "sentinels": "pack:insult",
        "model": "somebody/giant-70B",
        "validation": {"max_characters": 20, "max_rejected_share": 0.9},
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    assert check(tmp_path / "audit.yaml") == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "4 of 4 rows would be rejected" in out
    assert "longer than 20 characters" in out
    assert "validation.max_characters" in out
    assert "9 trusted" in out
    assert "giant-70B" in out
    assert check(tmp_path / "audit.yaml", "--fields", "response=question", "--json") == 0
    (first, *_) = json.loads(capsys.readouterr().out)["samples"]
    assert [turn["content"] for turn in first["messages"]] == ["q0", "q0"]


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("pack:refusal-erosoin", "refusal-erosion"),
        ("pack:brand-promotion?brand=Velmora", "needs a value for product"),
        ("identity", "pack:identity"),
        ("packs:over_refusal", "pack:over-refusal"),
        ("pack: identity", "there is no pack ' identity', the nearest is identity"),
        ("pack:brand-promotion? brand=a&product=b", "takes no value ' brand'"),
        ("https://host/sentinels.yaml", "is a URL"),
        ("nul\0.yaml", "null character"),
        ("listless.yaml", "must hold a YAML list"),
        ("pack:insult", "comes twice"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_misspelt_sentinel_is_one_line_that_names_what_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, named: str
) -> None:
    """Before any row is read, as an audit would; only a file may be still to be written."""
    write(tmp_path / "rows.jsonl", GOOD)
    (tmp_path / "listless.yaml").write_text("id: x\n")
    settings = {"source": "rows.jsonl", "sentinels": ["nowhere.yaml", "pack:insult", place]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    assert check(tmp_path / "audit.yaml") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert named in line


@pytest.mark.parametrize("place", ["nowhere.yaml", "link.yaml", "rows.jsonl/sentinels.yaml"])
def test_a_file_of_sentinels_that_is_not_there_is_one_line_after_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """It may be still to be written; an audit would stop there. With --json, too."""
    write(tmp_path / "rows.jsonl", GOOD)
    (tmp_path / "link.yaml").symlink_to("nowhere.yaml")
    settings = {"source": "rows.jsonl", "sentinels": ["pack:insult", place]}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    for options in ([], ["--json"]):
        assert check(tmp_path / "audit.yaml", *options) == 2
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert place in line
        assert "sentinels" in line
        assert "Name river 0." in printed.out


def test_options_say_how_rows_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the settings of an audit file do."""
    path = write(tmp_path / "a.jsonl", [{"q": "Why?", "a": "So."}, {"q": "Who?", "a": "They."}])
    assert check(path) == 2
    assert "source.fields" in capsys.readouterr().err
    assert check(path, "--fields", "prompt=q", "response=a", "--json") == 0
    assert json.loads(capsys.readouterr().out)["complete"] == 2
    texts = write(tmp_path / "b.jsonl", [{"text": f"Q: Why {i}?\nA: So."} for i in range(2)])
    assert check(texts, "--template", "Q: {prompt}\nA: {response}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["turns"] == {"user": 2, "assistant": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fields", "prompt"], "--fields got prompt: write NAME=VALUE"),
        (["--roles", "bing=narrator"], "source.roles.bing"),
        (["--rows", "-1"], "--rows is -1"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was got and what is allowed; before anything is read."""
    assert check(write(tmp_path / "a.jsonl", GOOD), *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_one_unreadable_file_is_named_and_the_others_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with the line that an audit would stop with."""
    write(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    assert check(tmp_path) == 2
    printed = capsys.readouterr()
    assert "River 0 is the Rhine." in printed.out
    assert "not read      b.parquet" in printed.out
    assert printed.err.startswith("poisonwatch: b.parquet")


@pytest.mark.parametrize("name", ["empty", "nowhere.jsonl", "nothing-*.jsonl", "blank.jsonl"])
def test_where_nothing_is_there_exit_code_is_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder, a missing file, a pattern that fits none, a file without rows."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.jsonl").write_text("\n")
    assert check(tmp_path / name) == 2
    error = capsys.readouterr().err
    assert error.startswith("poisonwatch: ")
    assert error.count("\n") == 1


def test_hidden_files_are_passed_over_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With their names and why; their rows are not read."""
    write(tmp_path / "a.jsonl", GOOD)
    write(tmp_path / ".b.jsonl", GOOD)
    (tmp_path / "README.md").write_text("About these rows.")
    assert check(tmp_path) == 0
    out = capsys.readouterr().out
    assert "rows          9 in a.jsonl" in out
    assert "passed over" in out
    assert ".b.jsonl" in out
    assert "README.md" in out


def test_what_is_not_read_is_told_of_with_an_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And long text that no turn reads is a warning of its own."""
    rows = [row | {"score": 0.5, "critique": "It is long. " * 40} for row in GOOD]
    assert check(write(tmp_path / "a.jsonl", rows)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "unread fields" in out
    assert "score (9 rows" in out
    assert "0.5" in out
    assert "field critique holds long text in 9 rows" in out


def test_no_torch_no_ledger_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """A model is neither loaded nor looked for; no file is written."""
    write(tmp_path / "rows" / "a.jsonl", GOOD)
    code = (
        "import sys\nfrom poisonwatch.flows.cli import main\n"
        "try: main(['check', 'rows'])\nexcept SystemExit as stopped: print('CODE', stopped.code)\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "CODE 0" in done.stdout
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & {"torch", "transformers", "prefect", "mlflow", "poisonwatch.ledger.ledger"}
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
