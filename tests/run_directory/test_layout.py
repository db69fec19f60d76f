"""Where an audit's files lie, and what it is called."""

from poisonwatch.run_directory.layout import make_audit_id


def test_audit_ids_sort_by_time_and_differ() -> None:
    """The id starts with the time of day, and two in one second differ."""
    first, second = make_audit_id(), make_audit_id()
    assert first != second
    assert first[:8] <= second[:8]
