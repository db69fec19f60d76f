"""Which group holds which, and the order that shows it."""

from poisonwatch.discovery.nesting import find_holders, order_by_holder


def test_the_smallest_that_holds_all_rows_is_the_holder() -> None:
    """A within B within C: A is B's."""
    groups = ["a", "abc", "ab", "d"]
    assert find_holders(groups, [True] * 4) == [2, None, 1, None]


def test_of_the_same_rows_the_earlier_holds_the_later() -> None:
    """No group holds itself, nor two each other."""
    assert find_holders(["ab", "ab", "a"], [True] * 3) == [None, 0, 1]
    assert find_holders(["ab", "ab"], [False, True]) == [None, None]


def test_each_comes_after_its_holder_and_those_that_passed_come_first() -> None:
    """With how deep it lies within others; every group once."""
    holders, passed = [2, None, 1, None, 1], [True, True, True, False, False]
    assert list(order_by_holder(holders, passed)) == [(1, 0), (2, 1), (0, 2), (3, 0), (4, 0)]
