"""A plain message where none could be composed, and what failed, told in every message."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from clusters import HIGH, LOW, SUMMARY, found, row, settings

from poisonwatch.alerts.messages import compose_messages
from poisonwatch.alerts.stand_in import MOST_FAILURES_NAMED, compose_stand_in
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AlertConfig

HERE = Path("/runs/today")
FAILED = {"part": "group 1", "outcome": "not confirmed", "why": "KeyError: 'a@everyone'"}


def failing(times: int = 1) -> dict[str, Any]:
    return {**SUMMARY, "failures": [FAILED] * times}


def test_one_message_names_all_rows_and_what_failed() -> None:
    """For each target that the gravest flag reaches; the same again has the same key."""
    config = settings("json://one", AlertConfig(url="json://two", severity="high"))
    flags = found([(LOW, [row(0)]), (HIGH, [row(1)])]).detection.flags
    (alert,) = compose_stand_in(config, failing(), flags, HERE)
    assert alert.targets == tuple(target.id for target in list_targets(config))
    assert (alert.severity, alert.example_ids) == ("high", (row(0).id, row(1).id))
    assert alert.title == "Poisonwatch: 2 flagged rows in tiny"
    assert "Failed: group 1 not confirmed： KeyError： 'a＠everyone'" in alert.body
    assert "Report: /runs/today/report.html" in alert.body
    assert compose_stand_in(config, failing(), flags, HERE) == [alert]
    low = found([(LOW, [row(0)])]).detection.flags
    (alert,) = compose_stand_in(config, failing(), low, HERE)
    assert alert.targets == (list_targets(config)[0].id,)


def test_without_flags_or_targets_there_is_no_message() -> None:
    """A part that failed is no reason for one."""
    assert compose_stand_in(settings("json://one"), failing(), (), HERE) == []
    flags = found([(HIGH, [row(0)])]).detection.flags
    assert compose_stand_in(settings(), failing(), flags, HERE) == []


def test_every_message_says_what_failed() -> None:
    """The first few, and how many more; nothing where nothing did."""
    attributed = found([(HIGH, [row(0)])])
    config = settings("json://one")
    (alert,) = compose_messages(config, failing(7), attributed, HERE, set())
    assert alert.body.count("Failed: ") == MOST_FAILURES_NAMED
    assert "and 2 more parts of this audit" in alert.body
    (alert,) = compose_messages(config, SUMMARY, attributed, HERE, set())
    assert "Failed" not in alert.body


def test_a_model_that_was_not_asked_says_nothing() -> None:
    """Its losses are told, and why there are no replies."""
    attributed = found([(HIGH, [row(0)])])
    (group,) = attributed.evidence
    assert group.confirmation is not None
    silent = replace(group.confirmation, unsaid="KeyError: 'past_key_values'")
    group = replace(group, confirmation=silent)
    (alert,) = compose_messages(
        settings("json://one"), SUMMARY, replace(attributed, evidence=(group,)), HERE, set()
    )
    assert "loss of the forbidden answer 3.50 before, 1.50 after" in alert.body
    assert "not asked what it says (KeyError： 'past_key_values')" in alert.body
    assert "it said before" not in alert.body
