"""A screen of a row's characters: some that cannot be seen, where no writing system asks for them.

Validation keeps out rows where they plainly hide something; what is left for people to look at are
fillers, selectors and private characters, and format controls that no Latin letter stands beside.
"""

from collections import Counter
from collections.abc import Sequence

from poisonwatch.examples import Example
from poisonwatch.screens.finding import Finding
from poisonwatch.text.invisible import describe_characters, find_invisible, name_kind


def find_invisible_characters(examples: Sequence[Example]) -> list[Finding]:
    """Rows with characters that cannot be seen, in any turn, definition of a tool or rejected
    answer; `poisonwatch.text.invisible` says which.
    """
    found = []
    for row, example in enumerate(examples):
        hidden: Counter[str] = Counter()
        for message in example.all_messages:
            hidden.update(find_invisible(message.content))
        if hidden:
            kinds = ", ".join(sorted(set(map(name_kind, hidden))))
            points = describe_characters(hidden)
            reason = f"The text has invisible characters ({kinds}): {points}."
            found.append(Finding(row, "invisible-characters", kinds, reason))
    return found
