"""Users' expectations, refused where they make no sense."""

import re
from pathlib import Path
from typing import Any

import great_expectations.expectations as gxe
import pytest
import yaml

from poisonwatch.config import ExpectationConfig, ValidationConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.integrations.great_expectations.expectation import AuditExpectation
from poisonwatch.integrations.great_expectations.user_expectations import (
    EXPECTATION_TYPES,
    build_user_expectations,
)

REGEX = {"type": "ExpectColumnValuesToNotMatchRegex", "column": "response", "regex": "x"}


def own(**settings: Any) -> AuditExpectation:
    (asked,) = build_user_expectations([ExpectationConfig(**settings)])
    return asked


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        own(**settings)
    assert str(caught.value).startswith("validation.expectations[0]: ")
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_every_row_and_column_type_of_great_expectations_can_be_named() -> None:
    """The standard ones; none that asks a database, or about schemas and types."""
    assert len(EXPECTATION_TYPES) >= 44
    assert all(getattr(gxe, name) is kind for name, kind in EXPECTATION_TYPES.items())
    assert not [
        name
        for name in EXPECTATION_TYPES
        if "Query" in name
        or "OtherTable" in name
        or "TableColumn" in name
        or name == "UnexpectedRowsExpectation"
    ]


@pytest.mark.parametrize(
    ("settings", "severity"),
    [
        (REGEX, "reject"),
        ({**REGEX, "severity": "warn"}, "warn"),
        ({**REGEX, "mostly": 0.9}, "warn"),
        ({**REGEX, "mostly": 1.0}, "reject"),
        ({"type": "ExpectColumnMeanToBeBetween", "column": "tokens", "max_value": 5}, "warn"),
        ({"type": "ExpectTableRowCountToBeBetween", "min_value": 5, "severity": "stop"}, "stop"),
    ],
)
def test_what_is_on_rows_rejects_and_all_else_warns(
    settings: dict[str, Any], severity: str
) -> None:
    """Unless the user says otherwise."""
    assert own(**settings).severity == severity


def test_an_unknown_type_names_the_nearest() -> None:
    """Whatever its spelling."""
    assert (
        "unknown type ExpectColumnValuesToNotMatchRegx; the nearest known are ExpectColumnValuesToNotMatchRegex, "
        in refusal(type="ExpectColumnValuesToNotMatchRegx")
    )
    assert "are ExpectColumnValuesToNotBeNull, " in refusal(
        type="expect_column_values_to_not_be_null"
    )
    assert "unknown type UnexpectedRowsExpectation" in refusal(
        type="UnexpectedRowsExpectation", unexpected_rows_query="SELECT 1"
    )


def test_an_unknown_column_names_those_that_exist() -> None:
    """In any place where a type takes columns."""
    for settings in (
        {**REGEX, "column": "answer"},
        {"type": "ExpectColumnPairValuesToBeEqual", "column_A": "prompt", "column_B": "answer"},
        {"type": "ExpectCompoundColumnsToBeUnique", "column_list": ["prompt", "answer"]},
    ):
        said = refusal(**settings)
        assert (
            f"there is no column answer; there are {', '.join(EXPECTATION_COLUMNS)}, and record.NAME"
            in said
        )
    assert own(**{**REGEX, "column": "record.anything"}).columns == ("record.anything",)


def test_an_unknown_setting_names_those_that_exist() -> None:
    """What Great Expectations keeps for itself is none."""
    assert refusal(**REGEX, pattern="y").endswith(
        "has no pattern; allowed are column, mostly, regex"
    )
    for key in (
        "meta",
        "result_format",
        "row_condition",
        "condition_parser",
        "catch_exceptions",
        "id",
    ):
        assert f"has no {key}" in refusal(**REGEX, **{key: "x"})


def test_wrong_settings_say_what_is_wrong() -> None:
    """In the words of Great Expectations, in one line."""
    assert "regex: field required" in refusal(type=REGEX["type"], column="prompt")
    assert "cannot be made of these settings" in refusal(
        type="ExpectTableRowCountToEqual", value="many"
    )
    assert "cannot be made of these settings" in refusal(**{**REGEX, "mostly": 7})
    assert "cannot take $PARAMETER" in refusal(**{**REGEX, "mostly": {"$PARAMETER": "x"}})


def test_what_says_nothing_of_single_rows_cannot_reject_them() -> None:
    """Tables, aggregates, and shares of rows."""
    table = refusal(type="ExpectTableRowCountToBeBetween", min_value=1, severity="reject")
    assert (
        "is about the whole batch and cannot reject single rows: use severity warn or stop" in table
    )
    assert "whole batch" in refusal(
        type="ExpectColumnMeanToBeBetween", column="tokens", min_value=1, severity="reject"
    )
    assert "with mostly, " in refusal(**REGEX, mostly=0.5, severity="reject")


def test_hostile_names_are_shown_inert() -> None:
    """Types, settings and columns alike."""
    hostile = "\x1b[31m\u202ex\n"
    for settings in ({"type": hostile}, {**REGEX, "column": hostile}, {**REGEX, hostile: 1}):
        assert hostile not in refusal(**settings)


# In the audit file


def configured(folder: Path, validation: dict[str, Any]) -> ValidationConfig:
    return resolve_config(
        {"source": "rows.jsonl", "sentinels": ["s.yaml"], "validation": validation}, folder
    ).validation


def test_expectations_stand_in_the_audit_file(tmp_path: Path) -> None:
    """As in the documentation, and they replay from what a run writes."""
    text = """
    languages: {en: 0.9}
    expectations:
      - {type: ExpectColumnValuesToNotMatchRegex, column: response, regex: "(?i)lorem ipsum", reason: "filler text", severity: reject}
      - {type: ExpectTableRowCountToBeBetween, min_value: 10, severity: warn}
    """
    config = configured(tmp_path, yaml.safe_load(text))
    assert [(a.reason, a.severity) for a in build_user_expectations(config.expectations)] == [
        ("filler text", "reject"),
        ("ExpectTableRowCountToBeBetween fails on the batch", "warn"),
    ]
    assert (
        configured(tmp_path, yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
        == config
    )


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        ({"languages": {"en": 1.5}}, "validation.languages.en: "),
        ({"languages": {False: 0.9}}, "validation.languages"),  # `no` in YAML
        ({"expectations": [{"column": "prompt"}]}, "validation.expectations.0.type: "),
        (
            {"expectations": [{"type": "X", "severity": "fatal"}]},
            "validation.expectations.0.severity: ",
        ),
        ({"language": {}}, "the nearest known key is languages"),
        ({"role_order": "off"}, "validation.role_order: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, validation: dict[str, Any], said: str
) -> None:
    """Before any row is read."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        configured(tmp_path, validation)


def test_every_setting_of_validation_explains_itself() -> None:
    """A sentence under each field."""
    assert all(
        field.description
        for model in (ValidationConfig, ExpectationConfig)
        for field in model.model_fields.values()
    )
