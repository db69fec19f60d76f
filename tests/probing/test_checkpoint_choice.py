"""Which checkpoint is meant."""

from pathlib import Path

import pytest

from poisonwatch.errors import InputError
from poisonwatch.probing.checkpoint_choice import ProbedCheckpoint


def test_nothing_to_probe_is_told() -> None:
    """Before anything is started for it."""
    with pytest.raises(InputError, match="--model CHECKPOINT"):
        ProbedCheckpoint()


def test_options_are_those_of_the_command_line() -> None:
    """What is not named is left out."""
    checkpoint = ProbedCheckpoint("out", release=Path("cleared/manifest.json"))
    assert checkpoint.options == ["--model", "out", "--release", "cleared/manifest.json"]
