"""What an audit says of the rows that its fit had to leave out: they are rejected, by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poisonwatch.examples import AuditRows, Example, Rejection, SelectedExamples
from poisonwatch.model.fault import FaultyRow, describe_fault
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

EXPECTATION = "expect_row_to_be_measurable"
EXCERPT_CHARACTERS = 400
ROWS_NAMED = 3  # in one line


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Rows of an audit that its model cannot measure: those that were `new`, and those that were
    `trusted`.
    """

    new: tuple[Rejection, ...] = ()
    trusted: tuple[Rejection, ...] = ()

    def __len__(self) -> int:
        return len(self.new) + len(self.trusted)

    def describe(self) -> Iterator[str]:
        """A line for the new rows and one for the trusted ones, where there are any."""
        for kind, rejected in (("new", self.new), ("trusted", self.trusted)):
            if not rejected:
                continue
            named = [f"{excerpt(row.place)} ({row.reason})" for row in rejected[:ROWS_NAMED]]
            if len(rejected) > ROWS_NAMED:
                named.append("...")
            rows = plural(len(rejected), f"{kind} row")
            yield f"{rows} left out, which the model cannot measure: {', '.join(named)}"


def leave_out_unmeasured(
    rows: AuditRows, faulty: Sequence[FaultyRow], precision: str
) -> tuple[AuditRows, Unmeasured]:
    """The rows that were measured, and rejections of those that were not, by their places in
    `rows.all`.
    """
    if not faulty:
        return rows, Unmeasured()
    new, trusted = list[Rejection](), list[Rejection]()
    for row in faulty:
        rejection = _make_rejection(rows.all[row.row], describe_fault(row.fault, precision))
        if row.row in rows.new_places:
            new.append(rejection)
        else:
            trusted.append(rejection)
    left_out = {row.row for row in faulty}
    new_places = [i for i in rows.new_places if i not in left_out]
    trusted_places = [i - len(rows.new) for i in rows.trusted_places if i not in left_out]
    kept = AuditRows(
        SelectedExamples.of(rows.new, new_places),
        SelectedExamples.of(rows.trusted, trusted_places),
    )
    return kept, Unmeasured(tuple(new), tuple(trusted))


def _make_rejection(example: Example, reason: str) -> Rejection:
    text = " / ".join(message.content for message in example.all_messages if message.content)
    return Rejection(
        source=example.source,
        position=example.position,
        place=f"{example.source or 'source'}, position {example.position}",
        expectation=EXPECTATION,
        reason=reason,
        # Cut first: a row of many megabytes need not be cleaned to show its beginning.
        text=excerpt(text[: 4 * EXCERPT_CHARACTERS], EXCERPT_CHARACTERS),
        example_id=example.id,
    )
