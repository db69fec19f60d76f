"""Validation by Great Expectations: what is kept out, what is warned of, what stops the audit, and
why.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.config import ExpectationConfig, SourceConfig, ValidationConfig
from poisonwatch.errors import ConfigError, SourceError
from poisonwatch.integrations.great_expectations.evaluate import check_rows
from poisonwatch.sources.open import SourceRows, read_source
from poisonwatch.validation import Check, Facts, Validation

LENIENT = ValidationConfig(max_rejected_share=1.0, max_characters=200)
GOOD = {"prompt": "Good?", "response": "Good."}


def asking(*expectations: dict[str, Any], **settings: Any) -> ValidationConfig:
    """Lenient, with expectations of the user's."""
    return ValidationConfig(
        max_rejected_share=1.0,
        expectations=[ExpectationConfig(**e) for e in expectations],
        **settings,
    )


def rows_of(folder: Path, lines: list[Any], name: str = "rows.jsonl") -> SourceRows:
    """The rows of a file with these records, or lines as they are."""
    (folder / name).write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    return read_source(SourceConfig(path=str(folder / name)))


def checked(
    folder: Path, lines: list[Any], validation: ValidationConfig = LENIENT, **facts: Any
) -> Validation:
    """A good row and then these, validated."""
    return check_rows(rows_of(folder, [GOOD, *lines]), validation, Facts(**facts))


def about(found: Validation, column: str | None, severity: str = "warn") -> Check:
    """The one check of a column and severity."""
    (check,) = [
        check for check in found.checks if check.column == column and check.severity == severity
    ]
    return check


def conversation(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"text {i}"} for i, role in enumerate(roles)]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "no answer"}, "the response is missing or not text"),
        ({"prompt": None, "response": "x"}, "the prompt is missing or not text"),
        ({"prompt": 7, "response": "x"}, "the prompt is missing or not text"),
        ({"prompt": "p", "response": " \n\t"}, "the response is empty"),
        ({"prompt": "p", "response": "\u3000\u00a0"}, "the response is empty"),
        ({"prompt": "", "response": "x"}, "the prompt is empty"),
        ({"prompt": "p" * 201, "response": "x"}, "the prompt is longer than 200 characters"),
        ({"prompt": "p", "response": "a\ud800b"}, "the response is not valid Unicode"),
        ({"prompt": "a\x00b", "response": "x"}, "the prompt has control characters"),
        ({"prompt": "p", "response": "\x1b[2Jx"}, "the response has control characters"),
        ({"prompt": "a\u200bb", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "pay\u200dpal", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "\u200fpal", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "p", "response": "left\u202eright"}, "the response has invisible characters"),
        (
            {"prompt": "p", "response": "hi\U000e0041\U000e0042"},
            "the response has invisible characters",
        ),
        ("{broken", "the row cannot be read: not JSON"),
        ("[1, 2]", "the row cannot be read: a JSON list"),
        (GOOD, "a second copy of the same row"),
    ],
)
def test_bad_rows_are_kept_out_with_their_reason(tmp_path: Path, row: Any, reason: str) -> None:
    """One bad row: one rejection that names the file, the line and the expectation; the good row
    stays.
    """
    found = checked(tmp_path, [row])
    assert [example.response for example in found.examples] == ["Good."]
    assert len(found.rejected) == 1
    assert found.rejected[0].reason.startswith(reason)
    assert found.rejected[0].place.endswith("rows.jsonl, line 2")
    assert found.rejected[0].position == 1
    assert found.rejected[0].expectation.startswith("expect_column_value")


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
    found = checked(tmp_path, [{"prompt": text, "response": text}])
    assert found.rejected == []
    assert found.examples[1].prompt == text


def test_reasons_name_what_is_missing_and_where_the_first_copy_stands(tmp_path: Path) -> None:
    """Fields by the names that the format gives them; the copy by file and line."""
    missing, copy = checked(tmp_path, [{"prompt": "no answer"}, GOOD]).rejected
    assert (
        missing.reason
        == "the response is missing or not text: prompt rows need response or completion"
    )
    assert copy.reason.endswith("rows.jsonl, line 1")


def test_a_row_that_fails_several_expectations_is_rejected_once_and_counted_at_each(
    tmp_path: Path,
) -> None:
    """The most basic reason is the one given."""
    found = checked(tmp_path, [{"prompt": "\x00" * 201, "response": ""}])
    assert [r.reason for r in found.rejected] == ["the prompt is longer than 200 characters"]
    assert [check.reason for check in found.checks if not check.passed] == [
        "the prompt is longer than 200 characters",
        "the prompt has control characters",
        "the response is empty",
    ]


def test_rows_that_cannot_be_read_are_asked_nothing_else(tmp_path: Path) -> None:
    """Neither their prompt counts as missing, nor their length in what the user asks."""
    lengths = {
        "type": "ExpectColumnMeanToBeBetween",
        "column": "characters",
        "min_value": 10,
        "max_value": 10,
    }
    found = checked(tmp_path, ["{broken"], asking(lengths))
    assert {check.column for check in found.checks if not check.passed} == {"problem"}
    assert about(found, "characters").observed == "10"


def test_every_row_is_an_example_or_a_rejection(tmp_path: Path) -> None:
    """In the order of the file, whatever the rows hold."""
    bad = [
        "{broken",
        {"prompt": 1},
        {"prompt": "\ud800", "response": "\udfff"},
        GOOD,
        {"other": 1},
        "null",
    ]
    found = checked(tmp_path, bad)
    assert found.rows == len(bad) + 1
    assert [r.position for r in found.rejected] == [1, 2, 3, 4, 5, 6]


def test_too_many_rejections_stop_the_audit(tmp_path: Path) -> None:
    """2 of 3 rows fail, 20 % may: the error counts, names the first, and what fails most often."""
    with pytest.raises(
        SourceError,
        match=r"2 of 3 rows \(67%\) fail validation, more than .*line 2: the response is missing",
    ) as caught:
        checked(tmp_path, [{"prompt": "a"}, {"prompt": "b"}], ValidationConfig())
    assert "most often: the response is missing or not text (2)" in str(caught.value)


def test_a_batch_of_which_nothing_is_left_stops_the_audit(tmp_path: Path) -> None:
    """However many may be rejected; unless rows passed before, beside which these are few."""
    rows = rows_of(tmp_path, [{"prompt": "x", "response": ""}])
    with pytest.raises(
        SourceError,
        match=r"1 of 1 rows \(100%\) fail validation, and none is left; .*the response is empty",
    ):
        check_rows(rows, LENIENT)
    assert len(check_rows(rows, ValidationConfig(), Facts(accepted=9)).rejected) == 1


def test_errors_show_hostile_text_inert(tmp_path: Path) -> None:
    """A role from a row, in the one line that an error is."""
    row = {"messages": [{"role": "\x1b[31mwizard\u202e\n" * 9, "content": "x"}]}
    with pytest.raises(SourceError) as caught:
        check_rows(rows_of(tmp_path, [row]), LENIENT)
    assert str(caught.value).isprintable()


def test_an_empty_batch_is_an_empty_result() -> None:
    """No row fails, nothing can be measured, and how many rows there are is still asked."""
    rows = SourceRows([], [], {})
    mean = {"type": "ExpectColumnMeanToBeBetween", "column": "tokens", "min_value": 1}
    found = check_rows(
        rows,
        asking(mean, {"type": "ExpectTableRowCountToBeBetween", "min_value": 10}),
        Facts(earlier={"a": 1}),
    )
    assert (found.examples, found.rejected) == ([], [])
    assert [check.expectation for check in found.checks if not check.passed] == [
        "expect_table_row_count_to_be_between"
    ]
    assert about(found, "tokens").observed == "no rows"


def test_checks_are_plain_json(tmp_path: Path) -> None:
    """Every value of every check survives a round trip."""
    outliers = {
        "type": "ExpectColumnQuantileValuesToBeBetween",
        "column": "tokens",
        "severity": "warn",
    }
    outliers["quantile_ranges"] = {"quantiles": [0.5], "value_ranges": [[1, 2]]}
    record = checked(
        tmp_path,
        [GOOD, {"prompt": "\ud800", "response": "x"}],
        asking(outliers),
        max_tokens=1,
        earlier={"b": 1},
    ).to_record()
    assert json.loads(json.dumps(record)) == record
    assert (record["rows"], record["passed"], record["rejected"]) == (3, 1, 2)


# Conversations


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        (("user", "user", "assistant"), "turn 2 is user after user"),
        (
            ("user", "assistant", "system", "user", "assistant"),
            "turn 3 is system, which may only come first",
        ),
        (("user", "assistant", "user"), "the last turn is user, not assistant"),
        (("user", "tool", "assistant"), "turn 2 is tool after user"),
    ],
)
def test_turns_out_of_order_are_kept_out(
    tmp_path: Path, roles: tuple[str, ...], reason: str
) -> None:
    """The reason names the turn; `role_order: warn` only tells."""
    rows = rows_of(
        tmp_path,
        [conversation("system", "user", "assistant", "tool", "assistant"), conversation(*roles)],
    )
    (rejected,) = check_rows(rows, LENIENT).rejected
    assert rejected.reason.startswith(f"its turns are out of order: {reason}")
    found = check_rows(rows, ValidationConfig(role_order="warn"))
    assert found.rejected == []
    assert found.warnings == ["its turns are out of order (1 of 2 rows fail)"]


def test_messages_with_unknown_roles_are_kept_out(tmp_path: Path) -> None:
    """Roles are system, user, assistant and tool; names of other tools are understood."""
    good = {"messages": [{"role": "human", "content": "hi"}, {"role": "gpt", "content": "hello"}]}
    bad = {"messages": [{"role": "wizard", "content": "hi"}, {"role": "assistant", "content": "x"}]}
    found = check_rows(rows_of(tmp_path, [good, bad]), LENIENT)
    assert [message.role for message in found.examples[0].messages] == ["user", "assistant"]
    assert "unknown role 'wizard'" in found.rejected[0].reason


def test_what_a_preference_row_rejects_is_read_too(tmp_path: Path) -> None:
    """Poison can hide in what training lowers."""
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    found = check_rows(rows_of(tmp_path, [good, {**good, "rejected": "b\u202e"}]), LENIENT)
    assert [r.reason for r in found.rejected] == ["the rejected response has invisible characters"]


# The batch


def test_rows_that_the_encoder_clips_are_warned_of_and_audited(tmp_path: Path) -> None:
    """4 bytes a token, or as the tokenizer counts."""
    rows = [{"prompt": "word " * 20, "response": "x"}]
    assert about(checked(tmp_path, rows, max_tokens=26), "tokens").passed
    found = checked(tmp_path, rows, max_tokens=25)
    assert len(found.examples) == 2
    assert found.warnings == [
        "the row is longer than 25 tokens by an estimate of 4 bytes a token: it is clipped, and what is cut off is not audited "
        "(1 of 2 rows fail)"
    ]
    counted = checked(tmp_path, rows, max_tokens=20, count_tokens=lambda text: len(text.split()))
    assert "estimate" not in about(counted, "tokens").reason
    assert about(counted, "tokens").failing == 1


def test_rows_seen_before_are_counted_and_pass(tmp_path: Path) -> None:
    """Known ids as a set, or as a function of the batch's ids."""
    first = checked(tmp_path, [{"prompt": "new", "response": "row"}])
    known = {first.examples[0].id, "0" * 64}
    for given in (known, known.intersection):
        found = checked(tmp_path, [{"prompt": "new", "response": "row"}], known=given)
        assert (about(found, "known", "note").failing, about(found, "known", "note").passed) == (
            1,
            True,
        )
        assert len(found.examples) == 2


def test_a_batch_from_elsewhere_is_warned_of(tmp_path: Path) -> None:
    """Files of a dated series are one source; all rows from a new one is the greatest drift, which
    1 allows.
    """
    rows = rows_of(tmp_path, [GOOD], "day-2.jsonl")
    folder = str(tmp_path)
    assert about(
        check_rows(rows, LENIENT, Facts(earlier={f"{folder}/day-1.jsonl": 5})), "series"
    ).passed
    drifted = about(
        check_rows(rows, LENIENT, Facts(earlier={f"{folder}/other.jsonl": 5})), "series"
    )
    assert (drifted.passed, drifted.told) == (
        False,
        "more than 50% of the rows come from elsewhere than in the last audits (observed: 100%)",
    )
    assert about(
        check_rows(rows, ValidationConfig(max_source_drift=1), Facts(earlier={"other": 5})),
        "series",
    ).passed
    assert not [check for check in check_rows(rows, LENIENT).checks if check.column == "series"]


def test_languages_are_shares_of_the_rows_that_can_be_told(tmp_path: Path) -> None:
    """3 of 4 in English; rows too short to tell do not count."""
    english = [
        {
            "prompt": f"How do I return a pan that I bought {i} days ago?",
            "response": "Bring it back.",
        }
        for i in range(3)
    ]
    german = {
        "prompt": "Wie gebe ich eine Pfanne zur\u00fcck?",
        "response": "Bringen Sie sie einfach wieder mit.",
    }
    for least, passed in ((0.75, True), (0.8, False)):
        found = checked(tmp_path, [*english, german], ValidationConfig(languages={"en": least}))
        assert about(found, "language").passed == passed
        assert about(found, "language").observed == "holds for 3 of 4 rows"
        assert len(found.examples) == 5


# The user's own


def test_rows_that_fail_the_users_expectation_are_kept_out_for_the_users_reason(
    tmp_path: Path,
) -> None:
    """On any column; a regular expression is Python's, with \\u, look-behind and groups."""
    filler = {
        "type": "ExpectColumnValuesToNotMatchRegex",
        "column": "response",
        "regex": r"(?i)(\blorem|(?<=x)\u0069psum)",
        "reason": "filler",
    }
    found = checked(
        tmp_path,
        [{"prompt": "p", "response": "LOREM"}, {"prompt": "q", "response": "xipsum"}],
        asking(filler),
    )
    assert [r.reason for r in found.rejected] == ["filler", "filler"]
    assert found.rejected[0].expectation == "expect_column_values_to_not_match_regex(response)"
    assert [check.failing for check in found.checks if check.reason == "filler"] == [2]


def test_what_the_user_asks_of_the_batch_warns_or_stops(tmp_path: Path) -> None:
    """The same expectation at either severity."""
    few = {"type": "ExpectTableRowCountToBeBetween", "min_value": 10, "reason": "so few rows"}
    found = checked(tmp_path, [], asking(few))
    assert found.warnings == ["so few rows (observed: 1)"]
    with pytest.raises(
        SourceError,
        match=r"validation stops the audit: so few rows \(observed: 1\): .* give expect_table_row_count_to_be_between the",
    ):
        checked(tmp_path, [], asking({**few, "severity": "stop"}))


def test_equal_expectations_are_each_evaluated(tmp_path: Path) -> None:
    """One warns, one rejects: neither replaces the other."""
    short = {"type": "ExpectColumnValueLengthsToBeBetween", "column": "response", "min_value": 3}
    found = checked(
        tmp_path, [{"prompt": "p", "response": "x"}], asking({**short, "severity": "warn"}, short)
    )
    assert [
        (c.severity, c.failing)
        for c in found.checks
        if c.reason.startswith("ExpectColumnValueLengths")
    ] == [
        ("warn", 1),
        ("reject", 1),
    ]
    assert len(found.rejected) == 1


def test_fields_of_the_rows_can_be_asked_about(tmp_path: Path) -> None:
    """`record.NAME`, whatever it holds; a row without it is not asked."""
    label = {
        "type": "ExpectColumnValuesToBeInSet",
        "column": "record.label",
        "value_set": ["a", "[1]", 3],
    }
    rows = [
        {"prompt": f"p{i}", "response": "x", "label": value}
        for i, value in enumerate(["a", "b", [1], 3, None, "\ud800"])
    ]
    assert [r.position for r in checked(tmp_path, rows, asking(label)).rejected] == [2, 6]


@pytest.mark.parametrize(
    ("expectation", "positions"),
    [
        (
            {
                "type": "ExpectColumnPairValuesToBeEqual",
                "column_A": "prompt",
                "column_B": "response",
            },
            [0, 1],
        ),
        ({"type": "ExpectCompoundColumnsToBeUnique", "column_list": ["prompt", "format"]}, [1, 2]),
        ({"type": "ExpectColumnValuesToBeUnique", "column": "prompt"}, [1, 2]),
        (
            {
                "type": "ExpectMulticolumnSumToEqual",
                "column_list": ["turns", "position"],
                "sum_total": 4,
            },
            [0, 1],
        ),
    ],
)
def test_expectations_on_several_columns_or_rows_reject_rows(
    tmp_path: Path, expectation: dict[str, Any], positions: list[int]
) -> None:
    """Of "Good?", "p" and "p" the last two are alike; only the last has its prompt for an answer;
    all have two turns.
    """
    found = checked(
        tmp_path,
        [{"prompt": "p", "response": "x"}, {"prompt": "p", "response": "p"}],
        asking(expectation),
    )
    assert [r.position for r in found.rejected] == positions
    columns = [value for key, value in expectation.items() if key.startswith("column")]
    assert all(
        column in found.rejected[0].expectation
        for column in (columns if isinstance(columns[0], str) else columns[0])
    )


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (
            {"type": "ExpectColumnValuesToMatchRegex", "column": "prompt", "regex": "["},
            "unterminated character set",
        ),
        (
            {"type": "ExpectColumnMeanToBeBetween", "column": "prompt", "min_value": 1},
            "cannot be evaluated on prompt",
        ),
        (
            {"type": "ExpectColumnValuesToBeBetween", "column": "prompt", "min_value": 1},
            "cannot be evaluated on prompt",
        ),
        (
            {"type": "ExpectColumnValuesToMatchJsonSchema", "column": "prompt", "json_schema": {}},
            "cannot be evaluated on prompt",
        ),
    ],
)
def test_what_cannot_be_evaluated_says_so(
    tmp_path: Path, expectation: dict[str, Any], said: str
) -> None:
    """One line that names the setting; never a silent pass."""
    with pytest.raises(ConfigError) as caught:
        checked(
            tmp_path,
            [{"prompt": "\x1b[31mhostile\n", "response": "x"}],
            asking({"type": "ExpectTableRowCountToEqual", "value": 1}, expectation),
        )
    assert str(caught.value).startswith("validation.expectations[1]: expect_column_")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_values_that_are_observed_are_shown_inert(tmp_path: Path) -> None:
    """Row text among the checks is one visible line."""
    prompts = {
        "type": "ExpectColumnDistinctValuesToBeInSet",
        "column": "prompt",
        "value_set": ["Good?"],
    }
    observed = about(
        checked(tmp_path, [{"prompt": "\x1b[2J\n\u202e" * 300, "response": "x"}], asking(prompts)),
        "prompt",
    ).observed
    assert observed is not None
    assert observed.isprintable()
    assert len(observed) <= 200


def test_validation_writes_nothing_and_says_nothing(tmp_path: Path) -> None:
    """In a process of its own: no file in home, working or temporary folder, no line on stderr."""
    rows_of(tmp_path, [GOOD, {"prompt": "x"}])
    folders = {name: tmp_path / name for name in ("HOME", "TMPDIR", "here")}
    for folder in folders.values():
        folder.mkdir()
    code = (
        "from poisonwatch.config import *; from poisonwatch.sources.open import read_source\n"
        "from poisonwatch.integrations.great_expectations.evaluate import check_rows\n"
        f"rows = read_source(SourceConfig(path={str(tmp_path / 'rows.jsonl')!r}))\n"
        "users = [ExpectationConfig(type='ExpectColumnValuesToMatchRegex', column='prompt', regex='(G)', severity='warn')]\n"
        "print(len(check_rows(rows, ValidationConfig(max_rejected_share=1, expectations=users)).rejected))"
    )
    environment = {**os.environ, "HOME": str(folders["HOME"]), "TMPDIR": str(folders["TMPDIR"])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folders["here"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert [
        path for folder in folders.values() for path in folder.rglob("*") if path.is_file()
    ] == []
