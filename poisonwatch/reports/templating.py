"""Templates: every value that they print is made visible and escaped, so that hostile text stays
text.
"""

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from poisonwatch.flags import LOWERED, label_turn
from poisonwatch.text.display import excerpt, make_visible

FOLDER = "reports/templates"
LONGEST_MESSAGE = 4000  # characters of one message or answer
MOST_MESSAGES = 24  # turns of one row


def load_template(name: str) -> Template:
    """A template of reports: every value that it prints is made visible and escaped, and one that
    is not there is an error.
    """
    return _make_environment().get_template(name)


@cache
def _make_environment() -> Environment:
    return make_environment(FOLDER)


def make_environment(*folders: str) -> Environment:
    """An environment that finds templates in these folders of the package, the first that holds a
    name first.
    """
    environment = Environment(
        # Found by folder: poisonwatch/dashboards is a symlink in a checkout and a sub-package in a
        # wheel.
        loader=ChoiceLoader([PackageLoader("poisonwatch", folder) for folder in folders]),
        autoescape=True,
        # A misspelt name would print nothing, and nobody would miss it.
        undefined=StrictUndefined,
        finalize=_make_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ends"] = keep_ends
    environment.filters["excerpt"] = excerpt
    environment.filters["turn_label"] = label_turn
    environment.globals["lowered_label"] = LOWERED
    return environment


def keep_ends(whole: Any, longest: int) -> tuple[Any, int, Any]:
    """A text or tuple as (start, how much is left out, end), start and end together at most
    `longest`.

    The end is kept, too: poison that follows thousands of harmless characters must still be seen.
    """
    if len(whole) <= longest:
        return whole, 0, whole[:0]
    tail = longest // 4
    return whole[: longest - tail], len(whole) - longest, whole[-tail:]


def _make_visible(value: Any) -> Any:
    """What the template prints for a value; jinja calls it for every expression, before escaping.
    Macros return finished Markup.
    """
    if isinstance(value, Markup):
        return value
    return make_visible(str(value))
