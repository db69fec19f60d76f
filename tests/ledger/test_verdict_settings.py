"""Which settings a result holds for, and how strict they are."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from poisonwatch.config import AuditConfig
from poisonwatch.ledger.verdict_settings import (
    Strictness,
    describe_verdict_settings,
    parse_strictness,
)


def make_config(**settings: Any) -> AuditConfig:
    return AuditConfig.model_validate({"source": "rows.jsonl", "sentinels": "s.yaml", **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"detection": {"false_discovery_rate": 0.2}},
        {"detection": {"new_topics": "hold"}},
        {"screens": ["control-tokens"]},
        {"probes": 0},
        {"seed": 1},
        {"stride": {"r": 32}},
        {"stride": {"training": {"epochs": 2}}},
        {"stride": {"further_layers": []}},
    ],
    ids=str,
)
def test_what_shapes_verdicts_is_in_it(settings: Mapping[str, Any]) -> None:
    assert describe_verdict_settings(make_config(**settings)) != describe_verdict_settings(
        make_config()
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "other"},
        {"stride": {"memory_gb": 1, "token_budget": 99}},
        {"stride": {"training": {"checkpoint_every": 7}}},
        {"alerts": ["json://localhost/secret"]},
        {"tracking": "sqlite:///other.db"},
        {"screens": list(reversed(make_config().screens))},
    ],
    ids=str,
)
def test_what_shapes_none_is_not(settings: Mapping[str, Any]) -> None:
    assert describe_verdict_settings(make_config(**settings)) == describe_verdict_settings(
        make_config()
    )


def test_a_setting_that_came_later_leaves_earlier_audits_as_they_are() -> None:
    """Where it is as usual: their settings do not name it."""
    settings = json.loads(describe_verdict_settings(make_config()))
    assert "further_layers" not in settings["stride"]
    assert "layer" in settings["stride"]


def test_the_poisonwatch_that_judges_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe_verdict_settings(make_config())
    module = "poisonwatch.ledger.verdict_settings.__version__"
    monkeypatch.setattr(module, "0.1.9")
    assert describe_verdict_settings(make_config()) == before
    monkeypatch.setattr(module, "0.2.0")
    assert describe_verdict_settings(make_config()) != before


def test_strictness_is_read_back() -> None:
    config = make_config(detection={"false_discovery_rate": 0.2}, screens=["control-tokens"])
    assert parse_strictness(describe_verdict_settings(config)) == Strictness(
        0.2, frozenset({"control-tokens"})
    )


@pytest.mark.parametrize("text", [None, "", "null", "[]", "{}", '{"detection": {}}', "[" * 100_000])
def test_settings_that_do_not_say_have_none(text: str | None) -> None:
    assert parse_strictness(text) is None


@pytest.mark.parametrize("rate", ['"nan"', "NaN", "1e999", "1", "0", "-1", "9" * 400])
def test_a_rate_that_is_none_is_as_strict_as_nothing(rate: str) -> None:
    """NaN is below no rate that the gate may ask for."""
    assert (
        parse_strictness(f'{{"detection": {{"false_discovery_rate": {rate}}}, "screens": []}}')
        is None
    )


def test_one_is_as_strict_as_another_where_it_flags_what_the_other_does() -> None:
    found = Strictness(0.1, frozenset({"control-tokens", "trigger-ngram"}))
    assert found.is_at_least(None, None)
    assert found.is_at_least(0.1, ["control-tokens"])
    assert found.is_at_least(0.05, [])
    assert not found.is_at_least(0.2, None)
    assert not found.is_at_least(None, ["duplicate-answers"])
