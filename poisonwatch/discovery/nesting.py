"""Groups that lie within each other: the strongest of them stands for the others."""

from collections.abc import Collection, Iterator, Sequence


def find_leaders(groups: Sequence[Collection[str]]) -> list[int | None]:
    """For each of the groups (ids of rows), strongest first, the place of the strongest one that
    holds all its rows or lies within it; None where no stronger one does, so that it stands by
    itself.
    """
    members = [frozenset(group) for group in groups]
    leaders: list[int | None] = []
    for place, rows in enumerate(members):
        stronger = [other for other in range(place) if leaders[other] is None]
        kin = [other for other in stronger if members[other] <= rows or members[other] >= rows]
        leaders.append(kin[0] if kin else None)
    return leaders


def order_by_leader(
    leaders: Sequence[int | None], passed: Sequence[bool]
) -> Iterator[tuple[int, bool]]:
    """The places of groups, each after its leader, and whether it is shown below it; those that
    passed first. One that did not pass is shown by itself where its leader passed.
    """
    for wanted in (True, False):
        below: dict[int | None, list[int]] = {}
        for place, leader in enumerate(leaders):
            if passed[place] == wanted:
                here = leader if leader is not None and passed[leader] == wanted else None
                below.setdefault(here, []).append(place)
        for place in below.get(None, []):
            yield place, False
            yield from ((each, True) for each in below.get(place, []))
