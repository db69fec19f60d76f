"""Durations: settings are taken back as they are written, people read two units."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.text.durations import parse_duration, tell_duration, write_duration


@given(st.integers(0, 10**9))
def test_a_duration_is_taken_back_as_it_was_written(seconds: int) -> None:
    """To the second."""
    assert parse_duration(write_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_units_add_up() -> None:
    """Each with its number, spaces or not."""
    assert parse_duration("1d12h") == timedelta(hours=36)
    assert parse_duration("1 h 30 m") == timedelta(minutes=90)
    assert parse_duration("0.5h") == timedelta(minutes=30)
    assert parse_duration("2w") == timedelta(days=14)


@pytest.mark.parametrize(
    "text", ["", "1", "60", "h", "1x", "-1h", "1h and more", "1:30", "9" * 30 + "d", "999999999w"]
)
def test_what_is_no_duration_says_what_would_be(text: str) -> None:
    """A number alone has no unit, and could mean any."""
    with pytest.raises(ValueError, match=r"as|such"):
        parse_duration(text)


def test_people_read_the_two_largest_units() -> None:
    """And no zeros."""
    said = {
        timedelta(): "0 s",
        timedelta(seconds=45): "45 s",
        timedelta(hours=1): "1 h",
        timedelta(hours=3, minutes=12, seconds=5): "3 h 12 min",
        timedelta(days=3, seconds=20): "3 d",
        timedelta(days=2, hours=5): "2 d 5 h",
        -timedelta(minutes=5): "5 min",
    }
    assert {tell_duration(duration): duration for duration in said} == {
        text: duration for duration, text in said.items()
    }
