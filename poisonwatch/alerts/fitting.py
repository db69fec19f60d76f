"""Messages as a service takes them: in parts, or in a short form of one line."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from poisonwatch.alerts.services import Service, Unit

PART_MARK = " (99/99)"  # what a part's title may get
LEAST_TITLE = 60  # characters that a link must leave to it


@dataclass(frozen=True, slots=True)
class Message:
    """What a target is to be told, of plain text; `key` (16 hex digits) tells a repeated message
    from a new one, and `link` opens the audit's page where that is known.
    """

    key: str
    severity: str
    title: str
    body: str
    link: str | None = None


def _break_lines(text: str) -> str:
    # Apprise ends lines so for some services.
    return text.replace("\n", "\r\n")


MEASURES: Mapping[Unit, Callable[[str], int]] = {
    "characters": lambda text: len(_break_lines(text)),
    "bytes": lambda text: len(_break_lines(text).encode()),
    "bytes of JSON": lambda text: len(json.dumps(_break_lines(text))) - 2,
}


def fit(message: Message, service: Service) -> list[tuple[str, str]]:
    """Titles and bodies of what the service is sent, in order: none takes more than it allows."""
    if service.brief:
        return [("", shorten(message, service.most))]
    measure = MEASURES[service.unit]
    # A title and its line break count in most services.
    room = service.most - measure(message.title + PART_MARK + "\n")
    parts = list(_split(message.body, room, measure))
    if service.incidents:
        # Its second part would be another event of the same incident.
        return [(message.title, parts[0])]
    if len(parts) == 1:
        return [(message.title, message.body)]
    marked = []
    for number, part in enumerate(parts, start=1):
        marked.append((f"{message.title} ({number}/{len(parts)})", part))
    return marked


def shorten(message: Message, most: int) -> str:
    """One line of at most `most` characters: the title, the alert's key, and the link where it
    leaves room for a title.
    """
    key = f" Alert {message.key}"
    ends = [key]
    if message.link is not None:
        ends.insert(0, f"{key} {message.link}")
    end = next((end for end in ends if len(end) <= most - LEAST_TITLE), key)
    room = most - len(end)
    title = message.title
    if len(title) > room:
        title = title[: room - 1].rstrip() + "…"
    return f"{title}{end}"


def _split(text: str, most: int, measure: Callable[[str], int]) -> Iterator[str]:
    """The text in parts that measure at most `most` each, between lines where lines allow it."""
    part = ""
    for line in text.split("\n"):
        for piece in _cut(line, most, measure):
            longer = f"{part}\n{piece}" if part else piece
            if part and measure(longer) > most:
                yield part
                longer = piece
            part = longer
    yield part


def _cut(line: str, most: int, measure: Callable[[str], int]) -> Iterator[str]:
    """A line in pieces that measure at most `most`, between words where words allow it."""
    while measure(line) > most:
        # No character measures less than one.
        end = min(most, len(line))
        while end > 1 and measure(line[:end]) > most:
            end -= max(1, (measure(line[:end]) - most) // 12)
        space = line.rfind(" ", end // 2, end)
        if space > 0:
            end = space
        yield line[:end]
        line = line[end:].lstrip(" ")
    yield line
