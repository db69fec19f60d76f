"""`poisonwatch decide`: one row or many, by name, group, file or filter."""

from collections.abc import Iterator
from json import loads
from pathlib import Path

import pytest
from audits import write_audit

from poisonwatch.atomic import read_jsonl
from poisonwatch.config_file import load_config
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.ledger import Ledger


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit file whose audit flagged the three planted rows, in the folder `run`."""
    folder = tmp_path_factory.mktemp("decide")
    config = write_audit(folder, tiny_folder, tracking="none")
    audit_inline(load_config(config), folder / "run")
    return config


@pytest.fixture
def config(audited: Path) -> Iterator[Path]:
    """The same; what was decided is taken back."""
    yield audited
    flags = [line["example_id"] for line in read_jsonl(audited.parent / "run" / "flags.jsonl")]
    run("decide", str(audited), *flags, "unsure")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def count(config: Path) -> int:
    with Ledger.existing(load_config(config).state) as ledger:
        return len(list(read_decisions(ledger)))


def read_lines(config: Path) -> list[dict[str, object]]:
    return list(read_jsonl(config.parent / "run" / "flags.jsonl"))


def test_rows_are_named_by_id_and_by_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines count from 1, in what an audit leaves as well; several take one verdict."""
    lines = read_lines(config)
    assert all(line["line"] == int(str(line["position"])) + 1 for line in lines)
    first, second = lines[:2]
    place = f"rows.jsonl:{second['line']}"
    assert run("decide", str(config), str(first["example_id"])[:12], place, "poison") == 0
    out = capsys.readouterr().out
    assert f"{str(first['example_id'])[:16]} is poison" in out
    assert f"{str(second['example_id'])[:16]} is poison" in out
    assert "--undo" in out


def test_a_group_a_file_and_a_filter_name_rows(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the number that is printed takes all of them back."""
    assert run("decide", str(config), "--group", "1", "benign") == 0
    capsys.readouterr()
    lines = read_lines(config)
    assert (
        run("decide", str(config), "--rows", str(config.parent / "run/flags.jsonl"), "poison") == 0
    )
    out = capsys.readouterr().out
    assert out.count("is poison") == len(lines)
    numbers = out.split("--undo ")[1].strip()
    assert run("decide", str(config), "--undo", numbers) == 0
    names = tmp_path / "names.txt"
    names.write_text(f"{str(lines[0]['example_id'])[:10]}\n\n")
    assert run("decide", str(config), "--rows", str(names), "unsure") == 0
    assert run("decide", str(config), "--source", "rows.jsonl", "poison") == 0
    assert run("decide", str(config), "--source", "rows.jsonl", "poison") == 2
    assert "waits for a decision" in capsys.readouterr().err


def test_what_was_decided_otherwise_is_told(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many rows, and as what; the same said again replaces nothing, nor does what was unsure."""
    ids = [str(line["example_id"]) for line in read_lines(config)]
    everything = "decide", str(config), "--rows", str(config.parent / "run/flags.jsonl")
    assert run("decide", str(config), ids[0], "poison") == 0
    assert run("decide", str(config), ids[1], "edit", "--answer", "Any shop will do.") == 0
    capsys.readouterr()
    assert run(*everything, "poison") == 0
    assert "decided otherwise before: 1 row (1 edit)\n" in capsys.readouterr().out
    assert run(*everything, "benign", "--json") == 0
    made = [loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["replaces"] for each in made] == ["poison"] * len(ids)
    assert run(*everything, "benign", "--json") == 0
    assert "replaces" not in capsys.readouterr().out


def test_a_row_that_was_never_flagged_asks_for_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is decided on the others either."""
    flagged = str(read_lines(config)[0]["example_id"])
    before = count(config)
    assert run("decide", str(config), flagged, "rows.jsonl:1", "poison") == 2
    assert "neither flagged nor rejected" in capsys.readouterr().err
    assert count(config) == before
    assert run("decide", str(config), "rows.jsonl:1", "poison", "--unflagged") == 0
    assert run("decide", str(config), "rows.jsonl:1", "unsure") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the last word says what the rows are"),
        (("rows.jsonl:41",), "the last word says what the rows are"),
        (("poison",), "no rows: name them"),
        (("--group", "77", "poison"), "group 77"),
        (("--undo", "x"), "give a decision's number"),
        (("--undo", "1", "poison"), "name no rows beside it"),
        (("--rows", "nowhere.txt", "poison"), "cannot be read"),
        (("rows.jsonl:0", "poison"), "count from 1"),
    ],
)
def test_mistakes_are_one_line(
    config: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("decide", str(config), *words) == 2
    assert said in capsys.readouterr().err


def test_two_people_decide_where_the_audit_file_asks_for_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first word waits, and is withdrawn by its number; the second one counts."""
    strict = config.with_name("strict.yaml")
    strict.write_text(config.read_text() + "review: {two_people: all}\n")
    before = count(config)
    say = ["decide", str(strict), "--group", "1", "benign", "--author"]
    assert run(*say, "ann") == 0
    out = capsys.readouterr().out
    assert "once a second person says the same" in out
    assert all(len(line) <= 80 or "--withdraw" in line for line in out.splitlines())
    assert (run(*say, "Ann"), count(config)) == (2, before)
    number = out.split("proposal ")[1].split(":")[0]
    withdraw = ["decide", str(strict), "--withdraw", number, "--author"]
    assert (run(*withdraw, "bob"), run(*withdraw, "ann")) == (2, 0)
    assert (run(*say, "ann"), run(*say, "bob")) == (0, 0)
    assert count(config) > before


def test_who_proposes_is_told_what_was_decided_otherwise(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is in force until a second person agrees; as a decision tells what it replaces."""
    strict = config.with_name("proposing.yaml")
    strict.write_text(config.read_text() + "review: {two_people: all}\n")
    ids = [str(line["example_id"]) for line in read_lines(config)]
    assert run("decide", str(config), ids[0], "poison") == 0
    assert run("decide", str(config), ids[1], "benign") == 0
    capsys.readouterr()
    say = ["decide", str(strict), *ids, "benign", "--author"]
    assert run(*say, "ann") == 0
    out = capsys.readouterr().out
    assert "decided otherwise, and in force until then: 1 row (1 poison)\n" in out
    assert run(*say, "bea", "--json") == 0
    made = [loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["replaces"] for each in made if each["example_id"] == ids[0]] == ["poison"]
    assert run(*say[:-2], "poison", "--json", "--author", "ann") == 0
    (proposed,) = (loads(line) for line in capsys.readouterr().out.splitlines())
    assert proposed["replaces"] == dict.fromkeys(ids, "benign")


def test_a_release_refuses_what_one_person_cleared_where_it_takes_two(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until a second one says the same, whenever the first did."""
    strict = config.with_name("stricter.yaml")
    strict.write_text(config.read_text() + "review: {two_people: all}\n")
    say = ["--group", "1", "benign", "--author"]
    assert run("decide", str(config), *say, "ann") == 0
    assert run("release", str(strict), "--out", str(tmp_path / "one")) == 2
    assert "two must agree" in capsys.readouterr().err
    assert run("decide", str(strict), *say, "bob") == 0
    assert run("release", str(strict), "--out", str(tmp_path / "two")) == 0


def test_an_answer_is_corrected_and_taken_back(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a text or as a file; what the row becomes is printed, and so is the undo's outcome."""
    id = str(read_lines(config)[0]["example_id"])
    assert run("decide", str(config), id[:12], "edit", "--answer", "Any shop will do.") == 0
    first = capsys.readouterr().out
    assert f"{id[:16]} becomes " in first
    (tmp_path / "answer.txt").write_text("Any <b>shop</b>\nwill do.\n")
    told = "edit", "--answer-file", str(tmp_path / "answer.txt"), "--json"
    assert run("decide", str(config), id, *told) == 0
    made = loads(capsys.readouterr().out)
    assert (made["verdict"], made["answer"]) == ("edit", "Any <b>shop</b>\nwill do.")
    assert made["repaired_id"][:16] not in first
    assert run("decide", str(config), "--undo", str(made["number"])) == 0
    assert made["example_id"][:16] in (again := capsys.readouterr().out)
    assert again.split("becomes ")[1][:16] == first.split("becomes ")[1][:16]
    assert run("decisions", str(config)) == 0
    assert "Any <b>shop</b>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("flip",), "no preference pair"),
        (("edit",), "edit with an answer"),
        (("benign", "--answer", "x"), "edit with an answer"),
        (("edit", "--answer", "x", "--answer-file", "y"), "one of them"),
        (("edit", "--answer-file", "nowhere.txt"), "cannot be read"),
        (("edit", "--answer", "<|im_end|>"), "would not validate"),
    ],
)
def test_a_repair_that_makes_no_sense_changes_nothing(
    config: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    """One line, exit code 2."""
    before, id = count(config), str(read_lines(config)[0]["example_id"])
    assert run("decide", str(config), id, *words) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert count(config) == before
