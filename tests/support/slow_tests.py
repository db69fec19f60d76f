"""Tests that tell little more than others do, and take many seconds of both cores."""

import os

import pytest

slow = pytest.mark.skipif(
    not os.environ.get("POISONWATCH_ALL_TESTS"), reason="set POISONWATCH_ALL_TESTS=1 to run it"
)
