"""Texts that a template describes: a prompt and its response, once or again and again."""

from functools import cache
from itertools import pairwise
from string import Formatter

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.rounds import Rounds, cut_beginning, split_response
from poisonwatch.formats.values import ReadingError
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import unify_line_ends

PLACEHOLDER_ROLES = {"system": "system", "prompt": "user", "response": "assistant"}
EXAMPLE_TEMPLATE = r"Q: {prompt}\nA: {response}"
_WITH_SYSTEM = ("system", "prompt", "response")


@cache
def _parse_template(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A template's literal pieces, and the placeholders between them. Raises ValueError where it
    makes no sense.
    """
    literals = [""]
    names: list[str] = []
    for literal, name, spec, conversion in Formatter().parse(unify_line_ends(template).strip()):
        literals[-1] += literal
        if name is None:
            continue
        if name not in PLACEHOLDER_ROLES or spec or conversion:
            raise ValueError(f"{{{name}}} is not one of {{system}}, {{prompt}} and {{response}}")
        names.append(name)
        literals.append("")
    if len(set(names)) < len(names) or not {"prompt", "response"} <= set(names):
        raise ValueError("it must hold {prompt} and {response}, once each")
    # Nothing would tell where the first of the two ends.
    if not all(literals[1:-1]):
        raise ValueError("something must stand between two placeholders")
    return tuple(literals), tuple(names)


@cache
def _find_rounds(template: str) -> Rounds | None:
    """How prompt and response come again; None where the response is not the last."""
    literals, names = _parse_template(template)
    if names[-2:] != ("prompt", "response"):
        return None
    return Rounds.from_literals(literals)


def check_template(template: str) -> None:
    """Raises ValueError, saying why, where a template makes no sense."""
    _parse_template(template)


def read_template_text(text: str, template: str) -> tuple[Turn, ...]:
    """The turns of a text that a template describes. Raises ReadingError where it is another text.

    A placeholder ends where the piece after it first occurs, the last one at the end, or where
    prompt and response come again: one pass, whatever the text. White space around the whole text
    does not count.
    """
    literals, names = _parse_template(template)
    rounds = _find_rounds(template)
    rest = unify_line_ends(text).lstrip()
    literals, names = _drop_system(literals, names, rounds, rest)
    first: list[Turn] = []
    if rounds is not None and not rest.startswith(literals[0]):
        first, rest = rounds.read_first(rest, literals[0])
    found = _take_apart(rest, literals, names)
    more: list[Turn] = []
    if rounds is not None:
        found["response"], more = split_response(found["response"], rounds)
    turns: list[Turn] = []
    # In the order of a conversation, whatever the template's.
    for name, role in PLACEHOLDER_ROLES.items():
        is_empty_system = name == "system" and not found.get(name)
        if name in found and not is_empty_system:
            turns.append(Turn(role, found[name]))
    return (*first, *turns, *more)


def _drop_system(
    literals: tuple[str, ...], names: tuple[str, ...], rounds: Rounds | None, text: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The template without its system, where the text begins with its prompt."""
    if names != _WITH_SYSTEM or rounds is None:
        return literals, names
    if text.startswith(literals[0]) and literals[1] in text:
        return literals, names
    tokens = literals[0][: len(literals[0]) - len(cut_beginning(literals[0]))]
    for opening in rounds.openings:
        for begun in (tokens + opening, opening):
            if opening and text.startswith(begun):
                return (begun + rounds.get_space(opening), *literals[2:]), names[1:]
    return literals, names


def _take_apart(rest: str, literals: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    """What stands in each placeholder."""
    if not rest.startswith(literals[0]):
        raise ReadingError(
            f"the text does not begin as the template does: '{excerpt(literals[0], 40)}'"
        )
    rest = rest[len(literals[0]) :]
    found = {}
    for name, (_, after) in zip(names[:-1], pairwise(literals[:-1]), strict=True):
        found[name], separator, rest = rest.partition(after)
        if not separator:
            raise ReadingError(
                f"the text lacks what the template has after {{{name}}}: '{excerpt(after, 40)}'"
            )
    # What the template ends with is looked for at the end alone: a response may hold it, too.
    rest = rest.rstrip()
    ending = literals[-1].rstrip()
    if not rest.endswith(ending):
        raise ReadingError(
            f"the text does not end as the template does: '{excerpt(literals[-1], 40)}'"
        )
    found[names[-1]] = rest[: len(rest) - len(ending)]
    return found
