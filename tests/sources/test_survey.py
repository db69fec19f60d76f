"""How a source is understood: counts that add up, samples, and what is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.examples import Example, Message
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources import survey as survey_module
from poisonwatch.sources.base import PassedOver
from poisonwatch.sources.survey import (
    TEMPLATE_TOKENS,
    Survey,
    describe_copies,
    describe_passed_over,
    list_trained,
    name_some,
    survey_source,
)


def write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def look_at(path: Path, max_tokens: int = 512, **settings: Any) -> Survey:
    samples = settings.pop("samples", 3)
    most_rows = settings.pop("most_rows", None)
    source = SourceConfig(path=str(path), **settings).with_base_folder(path)
    return survey_source(source, max_tokens, samples, most_rows=most_rows)


def chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def test_rows_turns_and_copies_add_up(tmp_path: Path) -> None:
    """Rows = files' rows; a copy has the bytes of an earlier row, in whatever file; a variant says
    the same in other bytes.
    """
    write(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b"}] * 3)
    write(
        tmp_path / "b.jsonl", [{"prompt": "a", "response": "b"}, {"response": "b", "prompt": "a"}]
    )
    found = look_at(tmp_path)
    assert [(file.name, file.rows) for file in found.files] == [("a.jsonl", 3), ("b.jsonl", 2)]
    assert (found.rows, found.complete, found.copies, found.variants) == (5, 5, 3, 1)
    assert found.turns == {"user": 5, "assistant": 5}
    assert found.problems == []


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """Its neighbours are read; the problem names it."""
    write(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b"}])
    write(tmp_path / "strange.jsonl", [{"p": 1}])
    (tmp_path / "z.parquet").write_bytes(b"no parquet")
    found = look_at(tmp_path)
    assert found.rows >= 1
    assert found.complete == 1
    assert [file.format is None for file in found.files] == [False, True, True]
    assert len(found.problems) == 2
    assert "strange.jsonl" in found.problems[0]
    assert "z.parquet" in found.problems[1]


def test_kinds_are_counted_by_row(tmp_path: Path) -> None:
    """A row may be of several kinds."""
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "d"},
        {"prompt": "a", "completion": "<think>\nhm\n</think>\n\nb"},
    ]
    write(tmp_path / "a.jsonl", rows)
    assert look_at(tmp_path / "a.jsonl").kinds == {"preference": 2, "reasoning": 1}


def test_unread_fields_are_counted_unless_they_are_ignored(tmp_path: Path) -> None:
    """By row, with an example; a silenced name is not told of."""
    rows = [{"prompt": f"a{i}", "response": "b", "score": i, "id": f"x{i}"} for i in range(1, 4)]
    write(tmp_path / "a.jsonl", rows)
    found = {field.name: field for field in look_at(tmp_path).unread}
    assert {name: field.rows for name, field in found.items()} == {"score": 3, "id": 3}
    assert found["id"].example == "x1"
    assert [field.name for field in look_at(tmp_path, ignore=["id"]).unread] == ["score"]


def test_tokens_are_a_quarter_of_the_bytes_and_an_audit_takes_what_fits(tmp_path: Path) -> None:
    """Total = prompts + answers; trained = answers; audited = min(row + template, most) each."""
    rows = [
        {"prompt": "p" * 40, "response": "r" * 80},
        {"prompt": "p" * 400, "response": "r" * 40},
    ]
    write(tmp_path / "a.jsonl", rows)
    tokens = look_at(tmp_path, max_tokens=64).tokens
    assert (tokens.total, tokens.trained) == (10 + 20 + 100 + 10, 20 + 10)
    assert tokens.audited == 30 + TEMPLATE_TOKENS + 64
    assert (tokens.longest, tokens.overlong) == (110, 1)
    assert tokens.longest_place == "a.jsonl, line 2"


def test_samples_are_of_different_kinds_first(tmp_path: Path) -> None:
    """The first row of each kind, then the first rows of all."""
    plain = [{"prompt": f"a{i}", "response": "b"} for i in range(30)]
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    write(tmp_path / "a.jsonl", [*plain, pair])
    places = [sample.place for sample in look_at(tmp_path).samples]
    assert places == ["a.jsonl, line 1", "a.jsonl, line 31", "a.jsonl, line 2"]
    assert look_at(tmp_path, samples=0).samples == []


def test_what_is_kept_is_bounded_and_what_is_counted_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows beyond the bound are read and not kept, by number and by bytes."""
    write(tmp_path / "a.jsonl", [{"prompt": f"a{i}", "response": "b"} for i in range(30)])
    monkeypatch.setattr(survey_module, "MAX_KEPT_ROWS", 10)
    found = look_at(tmp_path)
    assert (found.rows, found.complete, len(found.kept)) == (30, 30, 10)
    monkeypatch.setattr(survey_module, "MAX_KEPT_BYTES", 100)
    assert 0 < len(look_at(tmp_path).kept) < 5


def test_a_survey_of_the_first_rows_ends_there(tmp_path: Path) -> None:
    """Over all files together."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        write(tmp_path / name, [{"prompt": f"{name}{i}", "response": "b"} for i in range(4)])
    found = look_at(tmp_path, most_rows=6)
    assert [file.rows for file in found.files] == [4, 2, 0]


def test_the_loss_is_on_unmasked_answers_that_a_pair_does_not_share() -> None:
    """Masked answers are read; of a preference row, the prompt's answers are no answers."""
    first = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    plain = Example.from_messages([*first, Message("assistant", "d", masked=True)])
    assert list_trained(plain) == [False, True, False, False]
    pair = Example.from_messages(
        [*first, Message("assistant", "d")], rejected=[*first, Message("assistant", "e")]
    )
    assert list_trained(pair) == [False, False, False, True]


def test_unreadable_rows_count_as_rows_and_have_copies_too(tmp_path: Path) -> None:
    """Not as conversations."""
    lines = ['{"prompt": "a", "response": "b"}', "nonsense", "nonsense", '{"prompt": "a"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    found = look_at(tmp_path)
    assert (found.rows, found.complete, found.copies, found.variants) == (4, 1, 1, 0)


def test_hostile_names_are_shown_as_inert_text() -> None:
    """The first few by name, the rest by number."""
    many = [PassedOver(f"\x1b[31m{i}", "hidden") for i in range(5)]
    line = describe_passed_over(many)
    assert "\x1b" not in line
    assert line.endswith("and 2 more")
    assert line.count("(hidden)") == 3
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(["a", "b", "c", "\x07"]) == "a, b, c and 1 more"
    assert describe_copies(1).startswith("1 row is")
    assert describe_copies(1200).startswith("1,200 rows are")


def test_what_stands_beside_the_rows_is_told_of_its_file(tmp_path: Path) -> None:
    """It is in none of them."""
    record = {"definition": "d", "data": [{"prompt": "q", "completion": "a"}]}
    (tmp_path / "rows.json").write_text(json.dumps(record))
    (file,) = survey_source(SourceConfig(path=str(tmp_path)), 100).files
    assert file.rows == 1
    assert str(file.format).endswith("not read beside the rows: definition")
