"""Cheap screens beside attribution: rows that give themselves away in their text.

Two look across rows (`answers`, `ngrams`), two at each row's characters (`hidden_text`). Each is blind to poison without a surface mark,
such as wrong facts in plain words: that is attribution's part. A finding is raised without a false-discovery rate, so every rule prefers
silence. The outcome does not depend on the order of the rows.
"""

from collections.abc import Callable, Collection, Sequence
from typing import get_args

from poisonwatch.config import ScreenName
from poisonwatch.examples import Example
from poisonwatch.screens.control_tokens import control_tokens
from poisonwatch.screens.duplicate_answers import duplicate_answers
from poisonwatch.screens.finding import Finding, ordered
from poisonwatch.screens.invisible_characters import invisible_characters
from poisonwatch.screens.trigger_ngrams import trigger_ngrams

ALL: tuple[ScreenName, ...] = get_args(ScreenName)


def screen(
    examples: Sequence[Example], trusted: Sequence[Example] = (), special: Collection[str] = (), names: Collection[ScreenName] = ALL
) -> list[Finding]:
    """The findings of the named screens, by row, screen and group. `special`: the audited model's control tokens."""
    screens: dict[ScreenName, Callable[[], list[Finding]]] = {
        "duplicate-answers": lambda: duplicate_answers(examples, trusted),
        "trigger-ngram": lambda: trigger_ngrams(examples, trusted),
        "invisible-characters": lambda: invisible_characters(examples),
        "control-tokens": lambda: control_tokens(examples, special),
    }
    return ordered(finding for name in names for finding in screens[name]())
