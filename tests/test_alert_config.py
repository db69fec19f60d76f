"""Who is told of which rows: targets with conditions, and no row that is told to nobody."""

from datetime import timedelta
from typing import Any

import pytest
from clusters import settings
from pydantic import ValidationError

from poisonwatch.alert_config import (
    AlertConfig,
    RoutedRow,
    WhenConfig,
    check_panels,
    choose_alerts,
    find_owners,
    parse_interval,
)
from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError

SHOP = RoutedRow("data/shop/a.jsonl", "shop", "high")
DOCS = RoutedRow("data/docs/b.jsonl", "identity", "low")


def target(owner: str | None = None, **more: Any) -> AlertConfig:
    return AlertConfig(url="json://one", owner=owner, **more)


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        ({"source": "*/shop/*"}, True),
        ({"source": "a.jsonl"}, True),
        ({"source": ["c.jsonl", "data/shop/a.jsonl"]}, True),
        ({"source": "b.jsonl"}, False),
        ({"panel": "sho*"}, True),
        ({"panel": ["identity"]}, False),
        ({"severity": "high"}, True),
        ({"source": "a.jsonl", "panel": "identity"}, False),
    ],
)
def test_a_row_fits_all_that_is_given(when: dict[str, Any], fits: bool) -> None:
    """Files by name, path or pattern."""
    assert WhenConfig(**when).fits(SHOP) is fits


def test_severity_is_the_least_one() -> None:
    """Of each row."""
    assert not WhenConfig(severity="medium").fits(DOCS)
    assert WhenConfig(severity="medium").fits(SHOP)


def test_rows_go_to_whom_they_fit_else_to_those_without_conditions_else_to_all() -> None:
    """Nothing is told to nobody."""
    shop, docs, rest = (
        target(when=WhenConfig(source="*/shop/*")),
        target(when=WhenConfig(panel="identity", severity="medium")),
        target(),
    )
    assert choose_alerts([shop, docs, rest], [SHOP]) == [0]
    assert choose_alerts([shop, docs, rest], [DOCS]) == [2]
    assert choose_alerts([shop, docs], [DOCS]) == [0, 1]
    assert choose_alerts([shop, docs, rest], [SHOP, DOCS]) == [0]
    assert choose_alerts([], [SHOP]) == []


def test_whoever_takes_no_such_rows_does_not_count() -> None:
    """Low rows fit a target that takes high ones alone: others are told."""
    picky = target(when=WhenConfig(panel="identity"), severity="high", digest=False)
    assert choose_alerts([picky, target()], [DOCS]) == [1]
    assert choose_alerts([picky], [DOCS]) == []
    assert choose_alerts([picky], [DOCS._replace(severity="high")]) == [0]
    assert choose_alerts([picky], [DOCS._replace(severity="high")], new=False) == []


def test_owners_are_those_of_whoever_is_told() -> None:
    """Each once."""
    alerts = [
        target("shop team", when=WhenConfig(panel="shop")),
        target("shop team", when=WhenConfig(severity="high")),
        target("security"),
    ]
    assert find_owners(alerts, [SHOP]) == ["shop team"]
    assert find_owners(alerts, [DOCS]) == ["security"]


def test_conditions_without_any_are_refused() -> None:
    """They would look like some."""
    with pytest.raises(ValidationError, match="names none"):
        WhenConfig()
    for empty in ({"source": []}, {"panel": ""}, {"panel": ["shop", ""]}):
        with pytest.raises(ValidationError, match="names none"):
            WhenConfig(**empty)
    with pytest.raises(ValidationError, match="pannel"):
        WhenConfig(**{"pannel": "shop"})


def test_a_panel_that_is_none_is_refused_at_load() -> None:
    """It would wait for ever."""
    check_panels([target(when=WhenConfig(panel=["sh*"])), target()], ["shop", "identity"])
    with pytest.raises(ConfigError, match=r"alerts\[2\].when.panel is shp.*identity, shop"):
        check_panels([target(), target(when=WhenConfig(panel="shp"))], ["shop", "identity"])


@pytest.mark.parametrize(
    ("given", "kept", "days"),
    [("7d", "7d", 7), ("2w", "2w", 14), (0, "none", 0), ("none", "none", 0), (None, "none", 0)],
)
def test_reminders_have_an_interval_or_none(given: Any, kept: str, days: int) -> None:
    """A run's own settings are read back as they were."""
    config = settings(remind=given)
    assert config.remind == kept
    assert parse_interval(config.remind) == timedelta(days=days)
    assert settings(remind=kept).remind == kept


def test_an_audit_file_says_it_all(tmp_path: Any) -> None:
    """As docs/alerts.md has it; a wrong key is named."""
    text = (
        "source: rows.jsonl\nsentinels: pack:identity\nremind: 3d\nalerts:\n"
        "  - {url: 'json://one', when: {source: 'shop/*', severity: medium}, owner: shop team}\n"
        "  - json://two\n"
    )
    (tmp_path / "audit.yaml").write_text(text)
    config = load_config(tmp_path / "audit.yaml")
    assert config.alerts[0].when == WhenConfig(source=["shop/*"], severity="medium")
    assert (config.alerts[0].owner, config.alerts[1].when, config.remind) == (
        "shop team",
        None,
        "3d",
    )
    (tmp_path / "audit.yaml").write_text(text.replace("severity: medium", "severty: medium"))
    with pytest.raises(ConfigError, match="severty"):
        load_config(tmp_path / "audit.yaml")
    (tmp_path / "audit.yaml").write_text(text.replace("remind: 3d", "remind: often"))
    with pytest.raises(ConfigError, match="remind"):
        load_config(tmp_path / "audit.yaml")
