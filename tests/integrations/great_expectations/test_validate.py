"""Validation by Great Expectations: what is kept out, what is warned of, what stops the audit, and
why.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import CHECKS, NAME, ONE, pull, sqlite_ledger, statuses, waiting
from validated import (
    GOOD,
    LENIENT,
    about,
    asking,
    checked,
    conversation,
    rows_of,
    write_lines,
)

from poisonwatch.config import ValidationConfig
from poisonwatch.errors import SourceError
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.sources.open import SourceRows
from poisonwatch.validation import Facts


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
        ({"prompt": "p", "response": "\u200b\ufeff"}, "the response is empty"),
        ({"prompt": "p", "response": "a\ufffdb"}, "the response is not valid Unicode"),
        ({"prompt": "a\x00b", "response": "x"}, "the prompt has control characters: U+0000 x 1"),
        ({"prompt": "p", "response": "\x1b[2J"}, "the response has control characters: U+001B x 1"),
        ({"prompt": "a\x85b", "response": "x"}, "the prompt has control characters: U+0085 x 1"),
        (
            {"prompt": "a\u200bb", "response": "x"},
            "the prompt has invisible characters: U+200B x 1",
        ),
        ({"prompt": "pay\u200dpal", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "\u200fpal", "response": "x"}, "the prompt has invisible characters"),
        ({"prompt": "p", "response": "left\u202eright"}, "the response has invisible characters"),
        (
            {"prompt": "p", "response": "hi\U000e0041\U000e0042\U000e0041"},
            "the response has invisible characters: U+E0041 x 2, U+E0042 x 1",
        ),
        ("{broken", "the row cannot be read: not JSON"),
        ("12", "the row cannot be read: a JSON int"),
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
        "form feeds\x0c and vertical tabs\x0bof code",
        "ภาษา\u200bไทย",
        "ខ្ញុំ\u200bសោកស្ដាយ",
        "မြန်မာ\u200bစာ",
        "\u202bשלום\u202c",
        "قال \u2067مرحبا\u2069 ثم",
        "Donau\u00addampf\u00adschiff",
        "go 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\ufeffA byte-order mark",
        "中\u200b文 residue that the screen tells of",
        "caf\u00e9 \u4f60\u597d",
    ],
)
def test_ordinary_text_of_any_script_passes(tmp_path: Path, text: str) -> None:
    """Joiners inside emoji and Persian words, breaks of scripts without spaces, marks of those that
    are written from right to left, tabs, line ends and accents are text.
    """
    found = checked(tmp_path, [{"prompt": text, "response": text}])
    assert found.rejected == []
    assert found.examples[1].prompt == text


def test_reasons_name_what_is_missing_what_is_there_and_what_helps(tmp_path: Path) -> None:
    """Fields by the names that the format gives them, those of the row, and the setting."""
    (missing,) = checked(tmp_path, [{"prompt": "no answer", "reply": "x"}]).rejected
    assert missing.reason.startswith(
        "the response is missing or not text: prompt rows need response or completion; "
        "this one has prompt, reply; source.fields"
    )


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
    """Or a copy; in the order of the file, whatever the rows hold."""
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
    assert [r.position for r in found.rejected] == [1, 2, 3, 5, 6]
    assert (len(found.examples), found.copies) == (1, 1)


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
    assert (record["rows"], record["passed"], record["rejected"]) == (3, 1, 1)
    assert (record["copies"], record["identical"]) == (1, 1)


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
    """The reason names the turn and the setting; `role_order: warn` only tells."""
    rows = rows_of(
        tmp_path,
        [conversation("system", "user", "assistant", "tool", "assistant"), conversation(*roles)],
    )
    (rejected,) = check_rows(rows, LENIENT).rejected
    assert rejected.reason.startswith(f"its turns are out of order: {reason}")
    assert "validation.role_order: warn" in rejected.reason
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
    (rejected,) = found.rejected
    assert rejected.reason == "the rejected response has invisible characters: U+202E x 1"


def test_orders_that_trainers_take_pass(tmp_path: Path) -> None:
    """An answer before a call, the user after a tool, two texts of the system, a greeting first."""
    orders = [
        ("user", "assistant", "assistant", "tool", "assistant"),
        ("user", "assistant", "tool", "user", "assistant"),
        ("system", "developer", "user", "assistant"),
        ("assistant", "user", "assistant"),
    ]
    found = check_rows(rows_of(tmp_path, [conversation(*roles) for roles in orders]), LENIENT)
    assert (len(found.examples), found.rejected) == (len(orders), [])


def test_both_conversations_of_a_preference_row_are_in_order(tmp_path: Path) -> None:
    """What training lowers is trained, too."""
    asked, answered = conversation("user", "assistant")["messages"]
    good = {"chosen": [asked, answered], "rejected": [asked, {**answered, "content": "worse"}]}
    bad = {**good, "rejected": [asked, asked, answered]}
    found = check_rows(rows_of(tmp_path, [good, bad]), LENIENT)
    assert len(found.examples) == 1
    assert "turn 2 is user after user" in found.rejected[0].reason


def test_a_row_of_which_nothing_is_trained_is_kept_out(tmp_path: Path) -> None:
    """The reason names the setting; one trained turn is enough."""
    asked = {"role": "user", "content": "a"}
    trained, masked = {"role": "assistant", "content": "b"}, {"role": "assistant", "content": "c"}
    masked["train"] = False
    lines = [{"messages": [asked, masked, asked, trained]}, {"messages": [asked, masked]}]
    found = check_rows(rows_of(tmp_path, lines), LENIENT)
    assert len(found.examples) == 1
    assert "source.train_on" in found.rejected[0].reason


def test_definitions_of_tools_are_asked_what_texts_are(tmp_path: Path) -> None:
    """A limit of their own, and no hidden characters; they stand in for no prompt."""
    tool = {"type": "function", "function": {"name": "f", "description": "d"}}
    asked, answered = conversation("user", "assistant")["messages"]

    def reason(description: str, prompt: str = "p") -> str:
        other = {**tool, "function": {"name": "f", "description": description}}
        turns = [{**asked, "content": prompt}, answered]
        lines = [
            {"messages": [asked, answered], "tools": [tool]},
            {"messages": turns, "tools": [other]},
        ]
        (rejected,) = check_rows(rows_of(tmp_path, lines), LENIENT).rejected
        return rejected.reason

    assert reason("x" * 201) == "the definition of its tools is longer than 200 characters"
    assert reason("pay\u200bpal").endswith("has invisible characters: U+200B x 1")
    assert reason("d", prompt="") == "the prompt is empty"


def test_a_turn_that_only_calls_or_thinks_is_not_empty(tmp_path: Path) -> None:
    """What the assistant calls or thinks is said."""
    asked = {"role": "user", "content": "a"}
    call = {"function": {"name": "f", "arguments": {}}}
    for answer in (
        {"content": "", "tool_calls": [call]},
        {"content": None, "tool_calls": [call]},
        {"content": "", "reasoning_content": "I think."},
    ):
        rows = rows_of(tmp_path, [{"messages": [asked, {"role": "assistant", **answer}]}])
        assert check_rows(rows, LENIENT).rejected == []


# Copies


def test_copies_are_counted_and_are_no_failures(tmp_path: Path) -> None:
    """However many: of 12 rows 10 are copies, one of two contents fails, and half of two may."""
    bad = {"prompt": "x", "response": ""}
    lines = [{**GOOD, "id": 1}, *[GOOD] * 4, *[bad] * 6]
    found = checked(tmp_path, lines, ValidationConfig(max_rejected_share=0.5))
    assert [example.position for example in found.examples] == [0]
    assert [rejection.position for rejection in found.rejected] == [6]
    assert (found.rows, found.copies, found.identical) == (12, 10, 9)
    assert about(found, "copy_of", "note").failing == 10
    assert not [check for check in found.checks if check.column == "copy_of" and not check.passed]


def test_copies_do_not_outweigh_rows_that_fail(tmp_path: Path) -> None:
    """Nor count beside them: one of two contents is half."""
    lines = [*[GOOD] * 50, {"prompt": "x", "response": ""}]
    with pytest.raises(SourceError, match=r"1 of 2 rows, 50 copies aside, \(50%\) fail"):
        checked(tmp_path, lines, ValidationConfig())


def test_copies_of_an_unreadable_line_are_copies(tmp_path: Path) -> None:
    """By their bytes: it is rejected once."""
    found = checked(tmp_path, ["{broken", "{broken", {"prompt": "a"}, {"prompt": "a"}])
    assert [rejection.position for rejection in found.rejected] == [1, 3]
    assert (found.copies, found.identical) == (2, 2)


def test_an_audit_of_copies_leaves_no_row_waiting(tmp_path: Path) -> None:
    """Each content has a status after it, however often and in how many files it stands."""
    (tmp_path / "data").mkdir()
    bad = {"prompt": "x", "response": ""}
    lines = [GOOD, {**GOOD, "id": 1}, bad, bad, {"prompt": "a"}, "{broken", "{broken", GOOD]
    for name in ("a.jsonl", "b.jsonl"):
        write_lines(tmp_path / "data" / name, lines)
    with sqlite_ledger(tmp_path) as ledger:
        pull(ledger, tmp_path / "data")
        batch = waiting(ledger)
        found = check_rows(batch.rows, LENIENT)
        assert found.rows == 2 * len(lines)
        with ledger.lock("tiny"), open_audit(ledger, "run", NAME, ONE, tmp_path / "run") as number:
            commit_audit(
                ledger,
                number,
                batch,
                examples=found.examples,
                rejected=found.rejected,
                flagged=[],
                checks=CHECKS,
                summary={},
            )
        assert statuses(ledger) == {"clean": 1, "rejected": 3}
        assert len(waiting(ledger)) == 0


def test_a_content_is_refused_where_one_of_its_rows_fails_what_the_user_asks(
    tmp_path: Path,
) -> None:
    """It would be released at every place; the reason is told where it holds. Being a copy is
    itself no such failure, whoever asks.
    """
    licence = {"type": "ExpectColumnValuesToBeInSet", "column": "record.by", "value_set": ["a"]}
    row = {"prompt": "p", "response": "r"}
    lines = [{**row, "by": "a"}, {**row, "by": "b"}, {**row, "by": "c"}]
    found = checked(tmp_path, lines, asking(licence))
    assert [rejection.position for rejection in found.rejected] == [2]
    assert (len(found.examples), found.copies) == (1, 2)
    alone = {"type": "ExpectColumnValuesToBeNull", "column": "copy_of"}
    found = checked(tmp_path, lines, asking(alone))
    assert (len(found.examples), found.rejected, found.copies) == (2, [], 2)


# The batch


def test_long_text_that_is_not_read_is_warned_of(tmp_path: Path) -> None:
    """With the settings that help; ignored fields are not."""
    rows = rows_of(tmp_path, [{**GOOD, "essay": "word " * 60, "id": i} for i in range(6)])
    unread = [replace(draft, unread=("essay", "id")) for draft in rows.drafts]
    rows = SourceRows(rows.raw, unread, rows.formats)
    (warning,) = check_rows(rows, LENIENT).warnings
    assert "the field essay holds long text in 6 rows" in warning
    assert "source.ignore" in warning
    assert check_rows(rows, LENIENT, Facts(ignore=["essay"])).warnings == []


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
