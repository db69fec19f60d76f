"""LLaMA-Factory's dataset_info.json says what fields and roles are called."""

import json
from pathlib import Path

import pytest

from poisonwatch.formats.format import Format
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import OpenedSource
from poisonwatch.sources.llama_factory import is_catalogue, read_catalogue, read_entry
from poisonwatch.sources.open import open_source, read_source

Turns = list[list[tuple[str, str | None]]]


def test_catalogue_is_told_from_a_description_by_datasets() -> None:
    """Each of its entries says where the data are."""
    assert is_catalogue({"a": {"file_name": "a.json"}, "b": {"hf_hub_url": "x/y"}})
    assert not is_catalogue({"default": {"features": {}}})
    assert not is_catalogue({"features": None})
    assert not is_catalogue({})


@pytest.mark.parametrize(
    ("entry", "format", "fields", "roles"),
    [
        (
            {},
            "alpaca",
            {"instruction": "instruction", "input": "input", "output": "output"},
            {},
        ),
        (
            {"columns": {"prompt": "q", "response": "a", "history": "h", "kto_tag": "ok"}},
            "alpaca",
            {"instruction": "q", "input": "input", "output": "a", "history": "h", "label": "ok"},
            {},
        ),
        (
            {"ranking": True, "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}},
            "preference",
            {"prompt": "q", "input": "input", "chosen": "c", "rejected": "r"},
            {},
        ),
        (
            {"formatting": "sharegpt", "tags": {"user_tag": "asker", "function_tag": "call"}},
            "sharegpt",
            {"conversations": "conversations", "from": "from", "value": "value"},
            {"asker": "user", "call": "assistant"},
        ),
        (
            {"formatting": "openai", "columns": {"messages": "m"}},
            "sharegpt",
            {"conversations": "m", "from": "role", "value": "content"},
            {},
        ),
        (
            {
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {"messages": "m", "chosen": "c", "rejected": "r"},
            },
            "preference",
            {
                "conversations": "m",
                "chosen": "c",
                "rejected": "r",
                "role": "from",
                "content": "value",
            },
            {},
        ),
    ],
)
def test_entry_says_format_fields_and_roles(
    entry: dict[str, object], format: str, fields: dict[str, str], roles: dict[str, str]
) -> None:
    """With LLaMA-Factory's names where it leaves them out; the format has all these fields."""
    settings = read_entry(entry)
    assert settings == {"format": format, "fields": fields, "roles": roles}
    assert Format(format, fields).fields == fields


def test_entries_that_are_not_known_or_differ_say_nothing() -> None:
    """Neither guesses nor stops."""
    assert read_entry({"formatting": "mine"}) is None
    assert read_entry({"columns": ["prompt"]}) is None
    assert read_entry({"tags": {"role_tag": 1}}) is None
    catalogue = {
        "a": {"file_name": "a.json"},
        "b": {"file_name": "b.json", "columns": {"prompt": "x"}},
        "c": {"file_name": "b.json", "columns": {"prompt": "y"}},
        "d": {"file_name": "d.json", "formatting": "mine"},
        "e": {"file_name": "./x/../e.json", "num_samples": 9},
    }
    found = read_catalogue(catalogue)
    assert list(found.settings) == ["a.json", "e.json"]
    assert ["'c'" in found.problems[0], "'d'" in found.problems[1]] == [True, True]
    assert found.ignored == ["num_samples of 'e'"]


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "../a.json"},
        {"file_name": "x/../../a.json"},
        {"file_name": "/tmp/a.json"},
        {"file_name": "s3://x/a.json"},
        {"hf_hub_url": "x/y"},
        {"script_url": "x.py"},
        {"file_name": "a.json", "ms_hub_url": "x/y"},
    ],
)
def test_data_sets_that_lie_elsewhere_are_problems(entry: dict[str, object], folder: Path) -> None:
    """LLaMA-Factory would train on them: whoever reads the folder is told, and the gate refuses."""
    (problem,) = read_catalogue({"mine": entry}).problems
    assert "'mine' lies outside" in problem
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    (one,) = open_source(SourceConfig(path=str(folder))).passed_over
    assert one.may_hold_rows
    assert problem in one.reason


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder of LLaMA-Factory: names that nobody could guess, in a file and in a folder."""
    place = tmp_path / "data"
    (place / "deep").mkdir(parents=True)
    row = {"frage": "Q", "antwort": "A", "vorher": [["Q0", "A0"]]}
    (place / "a.json").write_text(json.dumps([row]))
    talk = {"verlauf": [{"wer": "gast", "was": "Q"}, {"wer": "wirt", "was": "A"}]}
    (place / "deep" / "b.jsonl").write_text(json.dumps(talk) + "\n")
    (place / "c.jsonl").write_text('{"prompt": "Q", "response": "A"}\n')
    write_catalogue(place, {"prompt": "frage", "response": "antwort", "history": "vorher"})
    return place


def write_catalogue(folder: Path, columns: dict[str, str]) -> None:
    tags = {"role_tag": "wer", "content_tag": "was", "user_tag": "gast", "assistant_tag": "wirt"}
    deep = {"file_name": "deep", "formatting": "sharegpt", "columns": {"messages": "verlauf"}}
    catalogue = {
        "mine": {"file_name": "a.json", "columns": columns},
        "deep": {**deep, "tags": tags},
    }
    (folder / "dataset_info.json").write_text(json.dumps(catalogue))


def test_files_are_read_as_the_catalogue_of_their_folder_says(folder: Path) -> None:
    """Also in a folder that it names; a file that it does not name tells itself."""
    rows = read_source(SourceConfig(path=str(folder)))
    turns: Turns = [[(turn.role, turn.text) for turn in draft.turns] for draft in rows.drafts]
    once = [("user", "Q"), ("assistant", "A")]
    assert turns == [[("user", "Q0"), ("assistant", "A0"), *once], once, once]


def test_what_the_user_says_goes_before_the_catalogue(folder: Path) -> None:
    """Format, fields or template as a whole; roles one by one."""

    def settled(**more: object) -> SourceConfig:
        source = SourceConfig.model_validate({"path": str(folder), **more})
        opened: OpenedSource = open_source(source)
        return opened.units[0].settle(source)

    assert settled().fields["instruction"] == "frage"
    assert settled(format="prompt").fields == {}
    assert settled(fields={"prompt": "x"}).format == "auto"
    assert settled(roles={"gast": "system"}).roles == {"gast": "system"}


def test_catalogue_that_changes_has_its_files_read_anew(folder: Path) -> None:
    """Their rows are others then."""
    source = SourceConfig(path=str(folder))
    with Ledger.at(f"sqlite:///{folder.parent}/ledger.db") as ledger:
        assert ingest(ledger, "a", source).read == 3
        assert ingest(ledger, "a", source).unchanged == 3
        write_catalogue(folder, {"prompt": "frage", "response": "antwort"})
        again = ingest(ledger, "a", source)
    assert (again.unchanged, again.read) == (2, 1)
