"""What cannot be judged, for people: the section `new_topics` of summary.json read back.

Summaries of earlier versions have no such section: there is then nothing to say.
"""

from collections.abc import Mapping
from typing import Any

from poisonwatch.screens.finding import NEW_TOPIC
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

MOST_TOPICS = 20  # in a summary, and on a page
MOST_TOLD = 3  # in sentences of their own
LONGEST_WORDS = 60  # characters
# Trusted rows on a topic that make its scores ordinary ones: a few among the 32 nearest of a row.
TRUSTED_NEEDED = 20


def count_unjudged(summary: Mapping[str, Any]) -> int:
    """Rows that an audit could not judge, by its summary."""
    rows: int = summary.get("new_topics", {}).get("rows", 0)
    return rows


def tell_new_topics(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each of the MOST_TOLD largest topics that an audit could not judge, and one
    for all rows besides.
    """
    unjudged = count_unjudged(summary)
    if not unjudged:
        return []
    held = NEW_TOPIC in summary.get("screens", {})
    told = summary["new_topics"]["groups"][:MOST_TOLD]
    sentences = []
    for group in told:
        said = ""
        words = [*group["prompt_words"], *group["answer_words"]]
        if words:
            said = f" (most say “{excerpt(words[0], LONGEST_WORDS)}”)"
        rows, fate = plural(group["rows"], "row"), _tell_fate(group["rows"], held)
        sentences.append(
            f"{rows} on a topic that trusted rows do not cover{said} {fate}: "
            f"about {TRUSTED_NEEDED} trusted rows on it would let them be"
        )
    rest = unjudged - sum(group["rows"] for group in told)
    if rest:
        more = "more row" if told else "row"
        sentences.append(
            f"{plural(rest, more)} that trusted rows do not cover, on smaller topics, "
            f"{_tell_fate(rest, held)}"
        )
    return sentences


def _tell_fate(rows: int, held: bool) -> str:
    if not held:
        return "cannot be judged"
    verb = "is" if rows == 1 else "are"
    return f"cannot be judged, and {verb} held back until somebody decides"
