"""Tests that tell little more than others do, and take many seconds of both cores."""

import os

import pytest

EVERY_TEST = bool(os.environ.get("POISONWATCH_ALL_TESTS"))

slow = pytest.mark.skipif(not EVERY_TEST, reason="set POISONWATCH_ALL_TESTS=1 to run it")
