"""Durations: as settings write them (1h30m), and as people read them (1 h 30 min)."""

import re
from datetime import timedelta

from poisonwatch.text.words import plural

# Seconds by the letter that a setting writes, longest first.
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WORDS = {"d": "d", "h": "h", "m": "min", "s": "s"}
_WHOLE = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?\s?[wdhms]\s?)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s?([wdhms])")


def parse_duration(text: str) -> timedelta:
    """The duration of a text such as 30m, 1h30m or 7d. Raises ValueError where it is none."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError("is no duration: write a number and its unit, as in 30m, 1h or 1d12h")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError("is longer than any duration: write one such as 30m, 1h or 7d") from None


def write_duration(duration: timedelta) -> str:
    """A duration as a setting: `parse_duration` takes it back, to the second."""
    return "".join(f"{count}{unit}" for count, unit in _split(duration)) or "0s"


def tell_duration(duration: timedelta) -> str:
    """A duration for people, in its two largest units: 1 h 30 min, 2 d, 45 s."""
    parts = _split(abs(duration))
    if not parts:
        return "0 s"
    largest = list(_WORDS).index(parts[0][1])
    # What comes two units below is lost in the first: 3 d 20 s are 3 d.
    near = list(_WORDS)[largest : largest + 2]
    return " ".join(f"{count} {_WORDS[unit]}" for count, unit in parts if unit in near)


def describe_seconds(seconds: float) -> str:
    """A duration in one number, as coarse as an estimate is."""
    for limit, unit, name in ((90, 1, "second"), (5400, 60, "minute"), (129_600, 3600, "hour")):
        if seconds < limit:
            return plural(max(round(seconds / unit), 1), name)
    return plural(round(seconds / 86_400), "day")


def _split(duration: timedelta) -> list[tuple[int, str]]:
    """Days, hours, minutes and seconds, those that are not zero."""
    left = round(duration.total_seconds())
    parts = []
    for unit in _WORDS:
        count, left = divmod(left, _SECONDS[unit])
        if count:
            parts.append((count, unit))
    return parts
