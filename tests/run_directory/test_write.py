"""What an audit leaves behind."""

from poisonwatch.examples import Example, Message
from poisonwatch.run_directory.provenance import hash_data


def test_data_fingerprint_ignores_order_and_place() -> None:
    """Same contents, same fingerprint; other contents, another."""
    rows = [
        Example.from_messages([Message("user", str(i)), Message("assistant", "x")], "f", i)
        for i in range(3)
    ]
    moved = [Example.from_messages(row.messages, "g", 9) for row in reversed(rows)]
    one, other, fewer = (
        hash_data(example.id for example in some) for some in (rows, moved, rows[:2])
    )
    assert one == other != fewer
