"""Rows that a fit left out become rejections of an audit's rows."""

from dataclasses import replace

from attributions import benign

from poisonwatch.examples import AuditRows
from poisonwatch.model.fault import Fault, FaultyRow
from poisonwatch.stride.unmeasured import Unmeasured, leave_out_unmeasured

NEW = [replace(row, source="new.jsonl", position=i) for i, row in enumerate(benign(6))]
TRUSTED = [replace(row, source="old.jsonl", position=i) for i, row in enumerate(benign(4, seed=1))]
ROWS = AuditRows(NEW, TRUSTED)


def test_new_and_trusted_rows_are_told_apart() -> None:
    """By their places among all rows, new ones first; the others keep their order and roles."""
    faulty = (FaultyRow(2, Fault.LOSS), FaultyRow(5, Fault.NO_ANSWER), FaultyRow(6, Fault.STATES))
    kept, unmeasured = leave_out_unmeasured(ROWS, faulty, "torch.float16")
    assert list(kept.new) == [NEW[i] for i in (0, 1, 3, 4)]
    assert list(kept.trusted) == TRUSTED[1:]
    assert kept.ids == tuple(row.id for row in (*kept.new, *kept.trusted))
    assert [row.example_id for row in unmeasured.new] == [NEW[2].id, NEW[5].id]
    (trusted,) = unmeasured.trusted
    assert (trusted.source, trusted.position) == ("old.jsonl", 0)
    assert "states in the model are not finite numbers in float16" in trusted.reason
    assert trusted.text == " / ".join(message.content for message in TRUSTED[0].messages)
    assert len(unmeasured) == 3


def test_a_line_names_the_first_rows_of_each_role() -> None:
    """And says that there are more."""
    faulty = [FaultyRow(i, Fault.LOSS) for i in range(5)]
    (line,) = leave_out_unmeasured(ROWS, faulty, "torch.float16")[1].describe()
    assert line.startswith(
        "5 new rows left out, which the model cannot measure: new.jsonl, position 0 (its"
    )
    assert line.endswith(", ...")
    assert "position 3" not in line


def test_nothing_is_made_anew_where_nothing_is_left_out() -> None:
    """The same rows, and nothing to say."""
    assert leave_out_unmeasured(ROWS, (), "torch.float16") == (ROWS, Unmeasured())
    assert list(Unmeasured().describe()) == []
