"""Tests that tell little more than others do, and take many seconds of both cores."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

EVERY_TEST = bool(os.environ.get("POISONWATCH_ALL_TESTS"))

slow = pytest.mark.skipif(not EVERY_TEST, reason="set POISONWATCH_ALL_TESTS=1 to run it")


def sample(values: Iterable[Any], every: int) -> list[Any]:
    """A test's cases: the first and each `every`th after it is always tried, the others are more of
    the same, and slow.
    """
    cases = list(values)
    return [
        case if i % every == 0 else pytest.param(case, marks=slow) for i, case in enumerate(cases)
    ]
