"""Cheap screens beside attribution: rows that give themselves away in their text.

Two look across rows (`duplicate_answers`, `trigger_ngrams`), two at each row's characters
(`invisible_characters`, `control_tokens`). Each is blind to poison without a surface mark, such as
wrong facts in plain words: that is attribution's part. A finding is raised without a
false-discovery rate, so every rule prefers silence. The outcome does not depend on the order of the
rows.
"""

from collections.abc import Callable, Collection
from typing import get_args

from poisonwatch.config import ScreenName
from poisonwatch.examples import AuditRows
from poisonwatch.screens.control_tokens import find_control_tokens
from poisonwatch.screens.duplicate_answers import find_duplicate_answers
from poisonwatch.screens.finding import Finding, sort_findings
from poisonwatch.screens.invisible_characters import find_invisible_characters
from poisonwatch.screens.trigger_ngrams import NgramMine, find_trigger_ngrams

ALL_SCREENS: tuple[ScreenName, ...] = get_args(ScreenName)


def run_screens(
    rows: AuditRows,
    special: Collection[str] = (),
    names: Collection[ScreenName] = ALL_SCREENS,
    mine: NgramMine | None = None,
) -> list[Finding]:
    """The findings of the named screens, by row, screen and group. `special`: the audited model's
    control tokens; `mine`: the rows' n-grams, where others ask for them, too.
    """
    # Functions, so that a screen that is not named costs nothing.
    screens: dict[ScreenName, Callable[[], list[Finding]]] = {
        "duplicate-answers": lambda: find_duplicate_answers(rows),
        "trigger-ngram": lambda: find_trigger_ngrams(rows, mine),
        "invisible-characters": lambda: find_invisible_characters(rows.new),
        "control-tokens": lambda: find_control_tokens(rows.new, special),
    }
    found: list[Finding] = []
    for name in names:
        found += screens[name]()
    return sort_findings(found)
