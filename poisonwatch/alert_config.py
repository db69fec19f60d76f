"""Who is told of flagged rows: the entries of `alerts` in an audit file, and which of them are told
of which rows.

A target with `when` is told of the rows that fit it. Rows that fit nobody's `when` are told to the
targets without one, and where each has one, to all: no row is told to nobody because of `when`.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from poisonwatch.errors import ConfigError
from poisonwatch.source_config import Section
from poisonwatch.text.display import excerpt
from poisonwatch.text.durations import parse_duration

Severity = Literal["low", "medium", "high"]
_RANKS = {"low": 0, "medium": 1, "high": 2}
NEVER = "none"
LONGEST_INTERVAL = timedelta(days=3660)


class RoutedRow(NamedTuple):
    """What of a flagged row decides who is told of it: the file it came from, the panel it pushes,
    and how gravely.
    """

    source: str
    panel: str
    severity: str


def wrap_in_list(value: Any) -> Any:
    """Lets a text stand for a list of one."""
    if isinstance(value, str):
        return [value]
    return value


class WhenConfig(Section):
    """Of which rows a target is told: those that fit all that is given."""

    source: Annotated[list[str], BeforeValidator(wrap_in_list)] = Field([])
    """Files of the source, by name, path or pattern (shop/*.jsonl); one of them."""
    panel: Annotated[list[str], BeforeValidator(wrap_in_list)] = Field([])
    """Panels, by name or pattern; one of them."""
    severity: Severity = "low"
    """Least severity: less is not told to this target at all, in no digest either."""

    @model_validator(mode="after")
    def _check_given(self) -> "WhenConfig":
        patterns = [*self.source, *self.panel]
        is_empty = "severity" not in self.model_fields_set and not patterns
        if is_empty or "" in patterns:
            raise ValueError(
                "when names none of source, panel, severity: name one, or leave it out"
            )
        return self

    def fits(self, row: RoutedRow) -> bool:
        """Whether a row is of those."""
        return (
            _RANKS[row.severity] >= _RANKS[self.severity]
            and _matches(row.panel, self.panel)
            and (_matches(row.source, self.source) or _matches(_cut_path(row.source), self.source))
        )


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


def _cut_path(source: str) -> str:
    """The name of a file, without its folders."""
    return source.rpartition("/")[2]


class AlertConfig(Section):
    """Somebody to be told: exactly one of `url` and `block`."""

    url: str | None = None
    """An Apprise URL: slack://, workflows:// (Teams), mailto://, pagerduty://, json://, ..."""
    block: str | None = None
    """A Prefect notification block, TYPE/NAME, as in slack-webhook/ops."""
    severity: Severity = "low"
    """Least severity of a cluster that gets a message of its own; the rest goes into the audit's
    digest.
    """
    digest: bool = True
    """Whether a digest of the rest is sent."""
    when: WhenConfig | None = None
    """Of which rows: {source, panel, severity}. None: of those that fit no other target's."""
    owner: str | None = Field(None, min_length=1, max_length=100)
    """Whose these rows are, as messages, report and dashboard say."""

    @model_validator(mode="after")
    def _check_address(self) -> "AlertConfig":
        if (self.url is None) == (self.block is None):
            raise ValueError("an alert goes to one of url and block: leave the other out")
        return self

    def takes(self, severity: str, new: bool) -> bool:
        """Whether rows of such severity are told of: in a digest, or, those of a group that is
        `new`, in a message of their own.
        """
        return self.digest or (new and self.reaches(severity))

    def reaches(self, severity: str) -> bool:
        """Whether they get a message of their own."""
        return _RANKS[severity] >= _RANKS[self.severity]


def choose_alerts(
    alerts: Sequence[AlertConfig], rows: Iterable[RoutedRow], new: bool = True
) -> list[int]:
    """Which entries are told of rows that are told of together (a group that is `new`, or what has
    no message of its own): their places. One that any of the rows fits is told of all.
    """
    rows = list(rows)
    gravest = max((row.severity for row in rows), key=_RANKS.__getitem__)

    def is_meant(alert: AlertConfig) -> bool:
        return alert.when is not None and any(alert.when.fits(row) for row in rows)

    attempts: list[Callable[[AlertConfig], bool]] = [
        is_meant,
        lambda alert: alert.when is None,
        lambda _: True,
    ]
    for wanted in attempts:
        found = []
        for place, alert in enumerate(alerts):
            if wanted(alert) and alert.takes(gravest, new):
                found.append(place)
        if found:
            return found
    return []


def find_owners(alerts: Sequence[AlertConfig], rows: Iterable[RoutedRow]) -> list[str]:
    """Whose these rows are, by the entries that are told of them, each owner once."""
    owners: dict[str, None] = {}
    for place in choose_alerts(alerts, rows):
        owner = alerts[place].owner
        if owner is not None:
            owners[owner] = None
    return list(owners)


def check_panels(alerts: Sequence[AlertConfig], panels: Iterable[str]) -> None:
    """Raises ConfigError where a target is told of panels that no sentinel is in: it would wait for
    ever.
    """
    known = sorted(set(panels))
    for number, alert in enumerate(alerts, start=1):
        for pattern in alert.when.panel if alert.when else ():
            if not any(fnmatchcase(panel, pattern) for panel in known):
                raise ConfigError(
                    f"alerts[{number}].when.panel is {excerpt(pattern, 60)}, which no panel of the "
                    f"sentinels is called: there are {', '.join(known[:20])}"
                )


def parse_interval(text: str) -> timedelta:
    """A setting's time, by `check_interval`; NEVER is 0. Raises ValueError."""
    if text == NEVER:
        return timedelta(0)
    return parse_duration(text)


def check_interval(value: Any) -> Any:
    """A time as in 12h or 7d, as it is kept: NEVER where it is 0, or left empty. Raises
    ValueError.
    """
    if value is None or (value == 0 and not isinstance(value, bool)) or value == "0":
        return NEVER
    text = str(value).strip().lower()
    interval = parse_interval(text)
    if interval > LONGEST_INTERVAL:
        raise ValueError("is too long: give ten years at most, as in 7d, or none for never")
    return text if interval else NEVER
