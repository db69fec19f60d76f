"""Which of groups within each other stands for them, and the order that shows it."""

from poisonwatch.discovery.nesting import find_leaders, order_by_leader


def test_the_strongest_of_those_within_each_other_leads() -> None:
    """Whether it is the larger or the smaller; one that holds two leaders comes to the stronger."""
    assert find_leaders(["ab", "a", "cd", "abcd", "e"]) == [None, 0, None, 0, None]
    assert find_leaders(["ab", "ab", "abc"]) == [None, 0, 0]


def test_groups_that_share_some_rows_alone_stand_by_themselves() -> None:
    """Neither holds the other."""
    assert find_leaders(["ab", "bc"]) == [None, None]


def test_each_comes_after_its_leader_and_those_that_passed_come_first() -> None:
    """Every group once; one that did not pass is below no leader that did."""
    leaders, passed = [None, 0, None, 2, 0], [True, True, False, False, False]
    assert list(order_by_leader(leaders, passed)) == [
        (0, False),
        (1, True),
        (2, False),
        (3, True),
        (4, False),
    ]
