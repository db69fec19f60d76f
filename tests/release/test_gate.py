"""The gate as it is asked: paths of all kinds, versions, and an answer or an error."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from audits import benign, write_rows
from gates import NEEDED, ONE
from ledgers import NAME, cover
from sqlalchemy import update

from poisonwatch.errors import InputError, NotClearedError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.tables import decisions
from poisonwatch.ledger.two_people import submit_verdict
from poisonwatch.release.answer import GateAnswer
from poisonwatch.release.gate import check_cleared, require_cleared
from poisonwatch.release.release import write_release


@pytest.fixture
def config(cleared_ledger: Ledger, tmp_path: Path) -> Path:
    """An audit file of that ledger; its model does not exist."""
    settings = {
        "name": NAME,
        "source": "data/*.jsonl",
        "sentinels": "pack:identity",
        "model": "./none",
        "state": "sqlite:///ledger.db",
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "audit.yaml"


def test_several_places_give_one_answer(config: Path, out: Path, tmp_path: Path) -> None:
    """A manifest and a glob of rows, in the audit file's own fields; versions by their first
    digits.
    """
    renamed = [{"question": row["prompt"], "answer": row["response"]} for row in benign(1)]
    write_rows(tmp_path / "renamed.jsonl", renamed)
    settings = yaml.safe_load(config.read_text())
    settings["source"] = {
        "path": "data/*.jsonl",
        "fields": {"prompt": "question", "response": "answer"},
    }
    config.write_text(yaml.safe_dump(settings))
    answer = check_cleared(
        [out / "manifest.json", str(tmp_path / "*.jsonl")], config, "A" * 8, "b" * 64
    )
    assert (answer.rows, answer.files, answer.reasons) == (8, 2, {"flagged": 1})
    assert replace(answer.required, settings=None) == NEEDED
    assert answer.record() == {
        "cleared": False,
        "rows": 8,
        "files": 2,
        "model": ONE.model,
        "sentinels": ONE.sentinels,
        "by_decision": 0,
        "ledger": True,
        "head": answer.head,
        "signed": False,
        "keys": [],
        "reasons": {"flagged": 1},
        "missing": [
            {
                "source": str(tmp_path / "renamed.jsonl"),
                "position": 0,
                "example_id": answer.missing[0].example_id,
                "reason": "flagged",
            }
        ],
    }


def test_rows_are_counted_over_all_paths(config: Path, out: Path, tmp_path: Path) -> None:
    """A file that is given twice, in its folder, or with its manifest, is there once; a copy of it,
    or a link to it, is there once more.
    """
    data = tmp_path / "train"
    data.mkdir()
    write_rows(data / "a.jsonl", benign(2, start=1))

    def ask(*paths: Path) -> GateAnswer:
        return check_cleared(paths, config, ONE.model, ONE.sentinels)

    twice = ask(data / "a.jsonl", data, tmp_path / "train", data)
    assert (twice.cleared, twice.rows, twice.files) == (True, 2, 1)
    (data / "link.jsonl").symlink_to(data / "a.jsonl")
    linked = ask(data / "a.jsonl", data)
    assert (linked.rows, linked.reasons) == (4, {"repeated": 2})
    released = ask(out / "manifest.json", out / "clean.jsonl", out / "manifest.json")
    assert (released.cleared, released.rows) == (True, 7)
    (data / "link.jsonl").unlink()
    shutil.copy(data / "a.jsonl", data / "b.jsonl")
    assert ask(data).reasons == ask(data / "a.jsonl", data / "b.jsonl").reasons == {"repeated": 2}
    assert ask(out / "manifest.json", data / "a.jsonl").reasons == {"repeated": 2}


def test_what_is_not_cleared_stops_a_script(config: Path, out: Path, tmp_path: Path) -> None:
    """One line with counts and the first rows, hostile names made visible; else the number of rows."""
    versions = ONE.model, ONE.sentinels
    assert require_cleared([out / "manifest.json"], config, *versions) == 7
    write_rows(tmp_path / "a\x1b[31m.jsonl", benign(1))
    with pytest.raises(NotClearedError, match="1 of 1 rows is not cleared") as stopped:
        require_cleared([str(tmp_path / "a\x1b[31m.jsonl")], config, *versions)
    assert stopped.value.exit_code == 3
    assert "(1 flagged), such as" in str(stopped.value)
    assert "1b" in str(stopped.value)
    assert "[31m.jsonl:1: audit them" in str(stopped.value)
    assert "\x1b" not in str(stopped.value)


def test_what_cannot_be_asked_is_refused(config: Path, out: Path, tmp_path: Path) -> None:
    """Exit code 2: data without an audit file, a release's folder, no rows, no versions, nothing
    there.
    """
    data, versions = str(tmp_path / "data" / "a.jsonl"), (ONE.model, ONE.sentinels)
    with pytest.raises(
        InputError, match=r"a\.jsonl is no manifest of a release: give the audit file"
    ):
        check_cleared([data])
    with pytest.raises(InputError, match=r"give .*out/manifest\.json itself"):
        check_cleared([out], config)
    (tmp_path / "empty.jsonl").touch()
    for nothing in ([], [tmp_path / "empty.jsonl"]):
        with pytest.raises(InputError, match="there are no rows to be cleared"):
            check_cleared(nothing, config, *versions)
    with pytest.raises(InputError, match="does not exist"):
        check_cleared([tmp_path / "none.jsonl"], config, *versions)
    for wrong in ("abc", "x" * 64, "a" * 65, ""):
        with pytest.raises(InputError, match=r"'.*' is no model version: give the SHA-256"):
            check_cleared([data], config, wrong, ONE.sentinels)


def test_a_version_that_could_be_two_is_refused(
    cleared_ledger: Ledger, config: Path, tmp_path: Path
) -> None:
    """More digits tell them apart."""
    cover(cleared_ledger, tmp_path / "near", version=Version("a" * 63 + "0", ONE.sentinels))
    data = [tmp_path / "data" / "a.jsonl"]
    with pytest.raises(
        InputError, match="2 versions of model and sentinels in the ledger are like"
    ):
        check_cleared(data, config, "a" * 10, "b" * 10)
    assert check_cleared(data, config, "a" * 64, "b" * 10).reasons == {"flagged": 1}


def test_a_ledger_that_is_not_there_is_not_made(config: Path, tmp_path: Path) -> None:
    """No audit has run; asking changes nothing."""
    (tmp_path / "fresh").mkdir()
    shutil.copy(config, tmp_path / "fresh" / "audit.yaml")
    with pytest.raises(InputError, match="no audit has run"):
        check_cleared(
            [tmp_path / "data" / "a.jsonl"],
            tmp_path / "fresh" / "audit.yaml",
            ONE.model,
            ONE.sentinels,
        )
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["audit.yaml"]


def test_tampered_decisions_clear_nothing(
    cleared_ledger: Ledger, config: Path, tmp_path: Path
) -> None:
    """As for a release."""
    record_decision(cleared_ledger, "a.jsonl:1", "poison")
    with cleared_ledger.write() as connection:
        connection.execute(update(decisions).values(verdict="benign"))
    with pytest.raises(InputError, match="was changed or removed"):
        check_cleared([tmp_path / "data" / "a.jsonl"], config, ONE.model, ONE.sentinels)


def test_what_one_name_cleared_is_cleared_for_the_others_of_its_ledger(
    config: Path, cleared_ledger: Ledger, tmp_path: Path
) -> None:
    """As docs/running.md says: the same content, by an audit of the required versions, or by a
    person; a release has the rows of its own name alone.
    """
    settings = yaml.safe_load(config.read_text()) | {"name": "another"}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(settings))
    write_rows(tmp_path / "held.jsonl", benign(1))
    write_rows(tmp_path / "clean.jsonl", benign(2, start=1))
    held, clean = str(tmp_path / "held.jsonl"), str(tmp_path / "clean.jsonl")

    def ask(path: str, model: str = ONE.model) -> dict[str, int]:
        return check_cleared([path], other, model, ONE.sentinels).reasons

    assert (ask(clean), ask(held)) == ({}, {"flagged": 1})
    assert ask(clean, "d" * 64) != {}
    record_decision(cleared_ledger, "a.jsonl:1", "benign")
    assert ask(held) == {}
    assert check_cleared([held], other, ONE.model, ONE.sentinels).by_decision == 1
    with pytest.raises(InputError, match="no audited row of another"):
        write_release(cleared_ledger, "another", tmp_path / "theirs")


def test_what_one_person_cleared_is_not_cleared_where_it_takes_two(
    config: Path, cleared_ledger: Ledger, tmp_path: Path
) -> None:
    """Named with its place, until a second one says the same."""
    settings = yaml.safe_load(config.read_text()) | {"review": {"two_people": "all"}}
    strict = tmp_path / "strict.yaml"
    strict.write_text(yaml.safe_dump(settings))
    write_rows(tmp_path / "held.jsonl", benign(1))

    def ask() -> GateAnswer:
        return check_cleared([tmp_path / "held.jsonl"], strict, ONE.model, ONE.sentinels)

    record_decision(cleared_ledger, "a.jsonl:1", "benign", author="ann")
    answer = ask()
    assert answer.reasons == {"one person's word": 1}
    assert answer.missing[0].words == "a.jsonl:1"
    submit_verdict(cleared_ledger, ["a.jsonl:1"], "benign", author="bob", two_people="all")
    assert ask().cleared
