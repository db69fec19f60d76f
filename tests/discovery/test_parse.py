"""What is kept of a search for groups, read back: as it was, or not at all."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from discovered import KNOWN_BEFORE, make_examples, make_group, make_report

from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.discovery.parse import parse_report


def write(report: DiscoveryReport) -> Any:
    """A report as JSON has it."""
    return json.loads(json.dumps(report.to_record()))


def test_a_report_is_read_back_as_it_was_written() -> None:
    """parse(write(r)) = r, through JSON."""
    rows = make_examples()
    report = make_report(
        make_group(rows, precedents=KNOWN_BEFORE),
        make_group(rows[:2], 2, passed=False, replies=None, unsaid="no", precedents=None),
    )
    assert parse_report(write(report)) == report


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report, group: report.clear(),
        lambda report, group: report.update(groups=3),
        lambda report, group: report.update(groups=[{"number": 1}]),
        lambda report, group: report.update(groups=[group, group]),
        lambda report, group: report.update(rows=1e999),
        lambda report, group: report.update(rate="0.1"),
        lambda report, group: group.update(number=0),
        lambda report, group: group.update(rows=[]),
        lambda report, group: group.update(q_value=float("nan")),
        lambda report, group: group.update(prompt_words="Velmora"),
        lambda report, group: group["rows"][0].update(position="0"),
        lambda report, group: group["rows"][0].update(position=10**40),
        lambda report, group: group["rows"][0].update(example_id="../../etc"),
        lambda report, group: group["replies"][0].update(before=None),
        lambda report, group: group["precedents"].update(alike={"audit": 1}),
    ],
)
def test_what_is_no_report_raises_an_error_that_readers_catch(
    spoil: Callable[[Any, Any], None],
) -> None:
    """A file of another shape is told from a report: nothing of it reaches a page."""
    record = write(make_report(make_group(make_examples())))
    spoil(record, record["groups"][0] if record["groups"] else None)
    with pytest.raises((LookupError, TypeError, ValueError)):
        parse_report(record)
