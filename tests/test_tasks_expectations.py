"""Validation by Great Expectations: what is kept out, and why."""

import json
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.config import SourceConfig, ValidationConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Rejection
from poisonwatch.sources import pull
from poisonwatch.tasks.expectations import check_rows

LENIENT = ValidationConfig(max_rejected_share=1.0, max_characters=200)


def checked(tmp_path: Path, lines: list[Any], validation: ValidationConfig = LENIENT) -> tuple[list[Example], list[Rejection]]:
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps({"prompt": "Good?", "response": "Good."}), *rows]) + "\n")
    return check_rows(pull(SourceConfig(path=str(tmp_path / "rows.jsonl"))), validation)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "no answer"}, "the response is missing or not text"),
        ({"prompt": None, "response": "x"}, "the prompt is missing or not text"),
        ({"prompt": 7, "response": "x"}, "the prompt is missing or not text"),
        ({"prompt": "p", "response": " \n\t"}, "the response is empty"),
        ({"prompt": "", "response": "x"}, "the prompt is empty"),
        ({"prompt": "p" * 201, "response": "x"}, "the prompt is longer than 200 characters"),
        ({"prompt": "p", "response": "a\ud800b"}, "the response is not valid Unicode"),
        ({"prompt": "a\x00b", "response": "x"}, "the prompt has control characters"),
        ({"prompt": "p", "response": "\x1b[2Jx"}, "the response has control characters"),
        ({"prompt": "a\u200bb", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "pay\u200dpal", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "p", "response": "left\u202eright"}, "the response has invisible characters"),
        ({"prompt": "p", "response": "hi\U000e0041\U000e0042"}, "the response has invisible characters"),
        ("{broken", "the row cannot be read: not JSON"),
        ("[1, 2]", "the row cannot be read: a JSON list"),
        ({"prompt": "Good?", "response": "Good."}, "a second copy of the same row"),
    ],
)
def test_bad_rows_are_kept_out_with_their_reason(tmp_path: Path, row: Any, reason: str) -> None:
    """One bad row: one rejection that names the file, the line and the expectation; the good row stays."""
    examples, rejected = checked(tmp_path, [row])
    assert [example.response for example in examples] == ["Good."]
    assert len(rejected) == 1
    assert rejected[0].reason.startswith(reason)
    assert rejected[0].place.endswith("rows.jsonl, line 2")
    assert rejected[0].position == 1
    assert rejected[0].expectation.startswith("expect_column_value")


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "tab\tand\nline",
        "caf\u00e9 \u4f60\u597d",
    ],
)
def test_ordinary_text_of_any_script_passes(tmp_path: Path, text: str) -> None:
    """Joiners inside emoji and Persian words, tabs, line ends and accents are text."""
    examples, rejected = checked(tmp_path, [{"prompt": text, "response": text}])
    assert rejected == []
    assert examples[1].prompt == text


def test_too_many_rejections_stop_the_audit(tmp_path: Path) -> None:
    """2 of 3 rows fail, 20 % may: the error counts, and names the first."""
    with pytest.raises(SourceError, match=r"2 of 3 rows \(67%\) fail validation.*line 2: the response is missing"):
        checked(tmp_path, [{"prompt": "a"}, {"prompt": "b"}], ValidationConfig())


def test_messages_with_unknown_roles_are_kept_out(tmp_path: Path) -> None:
    """Roles are system, user, assistant and tool; names of other tools are understood."""
    good = {"messages": [{"role": "human", "content": "hi"}, {"role": "gpt", "content": "hello"}]}
    bad = {"messages": [{"role": "wizard", "content": "hi"}, {"role": "assistant", "content": "x"}]}
    (tmp_path / "chat.jsonl").write_text("\n".join(json.dumps(row) for row in (good, bad)))
    examples, rejected = check_rows(pull(SourceConfig(path=str(tmp_path / "chat.jsonl"))), LENIENT)
    assert [message.role for message in examples[0].messages] == ["user", "assistant"]
    assert "unknown role 'wizard'" in rejected[0].reason
