"""Groups that lie within others: which one holds which, and the order that shows it."""

from collections.abc import Collection, Iterator, Sequence


def find_holders(groups: Sequence[Collection[str]], passed: Sequence[bool]) -> list[int | None]:
    """For each of the groups (ids of rows), the place of the smallest other one that holds all its
    rows; None where none does. What holds a group that passed must have passed, too. Of two groups
    of the same rows the earlier holds the later.
    """
    members = [frozenset(group) for group in groups]
    holders: list[int | None] = []
    for place, rows in enumerate(members):
        around = []
        for other, others in enumerate(members):
            is_same = others == rows
            if other == place or not others >= rows or (is_same and other > place):
                continue
            if passed[other] or not passed[place]:
                around.append((len(others), -other))
        holders.append(-min(around)[1] if around else None)
    return holders


def order_by_holder(
    holders: Sequence[int | None], passed: Sequence[bool]
) -> Iterator[tuple[int, int]]:
    """The places of groups, each after the one that holds it, and how deep it lies within others;
    those that passed first. One that did not pass stands by itself where its holder passed.
    """
    for wanted in (True, False):
        inside: dict[int | None, list[int]] = {}
        for place, holder in enumerate(holders):
            if passed[place] == wanted:
                here = holder if holder is not None and passed[holder] == wanted else None
                inside.setdefault(here, []).append(place)
        waiting = [(place, 0) for place in reversed(inside.get(None, []))]
        while waiting:
            place, depth = waiting.pop()
            yield place, depth
            waiting += [(each, depth + 1) for each in reversed(inside.get(place, []))]
