"""What people decide on rows: an append-only chain.

    hash_n = SHA-256(number, example, verdict, note, author, time, hash_{n-1}),  hash_0 = 64 zeros

where a verdict by which the row is changed (`repairs`) has two fields more: the id of the changed
row, and the answer that it was given.

A decision is never changed or removed; another one on the same row takes its place. `verify_chain`
finds where the chain was tampered with: a changed decision has another hash, a removed one leaves a
gap, and of the last ones the number and hash are in every manifest. Each decision is a record of
the ledger's chain, too (`records`), which is signed.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    delete,
    desc,
    exists,
    func,
    insert,
    select,
    update,
)

from poisonwatch.attestation.signer import Signer
from poisonwatch.errors import InputError
from poisonwatch.ledger.answers import check_answer
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, now
from poisonwatch.ledger.queries import ID_DIGITS, is_hex, match_id_prefix, select_rows_of_file
from poisonwatch.ledger.records import CHAIN_START, DECISION, append_record, lock_chain
from poisonwatch.ledger.row_states import EDIT, REPAIRED, REPAIRS, find_audited_status
from poisonwatch.ledger.tables import decisions, flags, places, rejections, rows
from poisonwatch.ledger.team_tables import proposals
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.display import excerpt

Verdict = Literal["poison", "benign", "unsure"]
VERDICTS = get_args(Verdict)
MIN_ID_DIGITS = 8  # of an example id
ROWS_PER_READ = 1000


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on the row with `example_id`, as it is in the chain. One of REPAIRS has the id of
    what the row becomes, and an edit the `answer` that makes it so.
    """

    number: int
    example_id: str
    verdict: str
    note: str
    author: str
    decided_at: str
    previous: str
    hash: str
    repaired_id: str | None = None
    answer: str | None = None

    def record(self) -> dict[str, Any]:
        """As JSON; what only a changed row has, only where it is."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def compute_hash(self) -> str:
        """The hash that these fields should have."""
        fields = self.record()
        del fields["hash"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def record_decision(
    ledger: Ledger, row: str, verdict: str, note: str = "", author: str = ""
) -> Decision:
    """Append a verdict on a row, as `record_decisions` does on several."""
    (made,) = record_decisions(ledger, [row], verdict, note, author)
    return made


@retried
def record_decisions(
    ledger: Ledger,
    names: Sequence[str],
    verdict: str,
    note: str = "",
    author: str = "",
    unflagged: bool = True,
    answer: str | None = None,
) -> list[Decision]:
    """Append one verdict on each of several rows, on all or on none: a row is named by the first
    digits of its example id (at least 8) or as FILE:LINE, which counts from 1. With `unflagged`
    False, only rows that were flagged or rejected are decided on.

    A benign row is released next time and joins the trusted rows; a poisonous one stays in
    quarantine for good; unsure takes back what was decided before. Two verdicts change the row in
    every release: flip has the answers of a preference pair change places, and edit gives it
    another `answer`.

    Raises InputError where the verdict is none, or a row is not there, more than one, was never
    flagged, or cannot be changed so, and what the ledger's signer raises: then nothing is decided.
    """
    made = []
    with ledger.write() as connection:
        for row in find_rows(connection, names, unflagged):
            decision = append_decision(
                connection,
                row,
                verdict,
                note,
                author=author,
                signer=ledger.signer,
                answer=answer,
            )
            made.append(decision)
    return made


def find_rows(
    connection: Connection, names: Sequence[str], unflagged: bool
) -> list[Row[tuple[int, bytes, str]]]:
    """The rows (row, id, status) of these names, as `record_decisions` takes and refuses them."""
    found = []
    for name in names:
        row = _find_row(connection, name)
        if not unflagged and not _was_singled_out(connection, row.row):
            raise InputError(
                f"{excerpt(name, 80)} was neither flagged nor rejected, nor decided on before: "
                "look again whether it is the row that you mean (lines count from 1), and say "
                "--unflagged if it is"
            )
        found.append(row)
    return found


@retried
def revert_decisions(
    ledger: Ledger, numbers: Sequence[int], author: str = "", to_unsure: Collection[int] = ()
) -> list[Decision]:
    """Take decisions back, by new ones: each row is again what was decided before, or unsure where
    nothing was, or the decision is one `to_unsure`.

    Raises InputError where one of them is not there, or is not the last one on its row: somebody
    has decided anew since.
    """
    with ledger.write() as connection:
        signer = ledger.signer
        made = []
        for number in numbers:
            restores = number not in to_unsure
            made.append(_revert_decision(connection, number, author, signer, restores))
        return made


def _revert_decision(
    connection: Connection, number: int, author: str, signer: Signer | None, restores: bool
) -> Decision:
    row = select(decisions.c.row).where(decisions.c.number == number).scalar_subquery()
    of_row = (
        select(decisions.c.number, decisions.c.verdict, decisions.c.example_id, decisions.c.answer)
        .where(decisions.c.row == row)
        .order_by(desc(decisions.c.number))
        .limit(2)
    )
    last = connection.execute(of_row).all()
    if not last or last[0].number != number:
        raise InputError(
            f"decision {number} cannot be undone: it is not the last one on its row; decide anew"
        )
    before, answer = "unsure", None
    if len(last) > 1 and restores:
        before, answer = last[1].verdict, last[1].answer
    found = _find_row(connection, last[0].example_id)
    note = f"undoes decision {number}"
    return append_decision(
        connection, found, before, note, author=author, signer=signer, answer=answer
    )


def append_decision(
    connection: Connection,
    found: Row[tuple[int, bytes, str]],
    verdict: str,
    note: str,
    author: str,
    signer: Signer | None,
    answer: str | None = None,
) -> Decision:
    """`record_decision` within a transaction, on a row (row, id, status) that was found."""
    if verdict not in (*VERDICTS, *REPAIRS):
        raise InputError(
            f"the verdict {excerpt(verdict, 20)} is none: choose {', '.join((*VERDICTS, *REPAIRS))}"
        )
    repaired_id = compute_change(connection, found.row, verdict, answer)
    lock_chain(connection)
    end = select(decisions.c.number, decisions.c.hash).order_by(desc(decisions.c.number)).limit(1)
    last = connection.execute(end).one_or_none()
    unsigned = Decision(
        number=last.number + 1 if last else 1,
        example_id=bytes(found.id).hex(),
        verdict=verdict,
        note=note,
        author=author,
        decided_at=now(),
        previous=last.hash if last else CHAIN_START,
        hash="",
        repaired_id=repaired_id,
        answer=answer,
    )
    made = replace(unsigned, hash=unsigned.compute_hash())
    values = {**asdict(made), "repaired_id": repaired_id and bytes.fromhex(repaired_id)}
    connection.execute(insert(decisions).values(row=found.row, **values))
    # Unsure settles nothing: the row is again what the last audit said of it.
    settled = None if verdict == "unsure" else verdict
    status = _choose_status(connection, found, verdict)
    row = update(rows).where(rows.c.row == found.row)
    connection.execute(row.values(decided=settled, status=status))
    # What was decided leaves nothing to wait for.
    connection.execute(delete(proposals).where(proposals.c.row == found.row))
    item = str(made.number)
    append_record(connection, DECISION, item, *describe_decision(made), signer=signer)
    return made


def describe_decision(decision: Decision) -> tuple[dict[str, str], dict[str, Any]]:
    """What the record of a decision is on, and says."""
    return {f"decision {decision.number}": decision.hash}, decision.record()


def compute_change(
    connection: Connection, row: int, verdict: str, answer: str | None
) -> str | None:
    """The id of what a row becomes; None where the verdict changes none. Raises InputError."""
    if (verdict == EDIT) != (answer is not None):
        raise InputError("an answer goes with the verdict edit, and edit with an answer")
    if verdict not in REPAIRS:
        return None
    # It reads formats and sources, which no other verdict needs.
    from poisonwatch.ledger.repairs import Repair, compute_repaired_id

    if answer is not None:
        check_answer(answer)
    return compute_repaired_id(connection, row, Repair(verdict, answer))


def _choose_status(connection: Connection, found: Row[tuple[int, bytes, str]], verdict: str) -> str:
    """What a row is from now on."""
    status = verdict
    if verdict == "unsure":
        status = find_audited_status(connection, found.row)
    elif verdict == "benign":
        status = "clean"
    elif verdict in REPAIRS:
        status = REPAIRED
    # What was released is so, whoever says once more that it is clean.
    if status == "clean" and found.status == "released":
        return "released"
    return status


def _find_row(connection: Connection, name: str) -> Row[tuple[int, bytes, str]]:
    """The row of that name. Raises InputError."""
    wanted = select(rows.c.row, rows.c.id, rows.c.status)
    file, _, line = name.rpartition(":")
    if file and line.isascii() and line.isdigit():
        at = select_rows_of_file(file).where(places.c.position == int(line) - 1)
        wanted = wanted.where(rows.c.row.in_(at))
    else:
        digits = name.lower()
        if not is_hex(digits) or not MIN_ID_DIGITS <= len(digits) <= ID_DIGITS:
            raise InputError(
                f"{excerpt(name, 80)} names no row: give the first 8 or more digits of its "
                "example id, or FILE:LINE"
            )
        wanted = wanted.where(match_id_prefix(digits))
    found = connection.execute(wanted.limit(2)).all()
    if not found:
        raise InputError(
            f"{excerpt(name, 80)} names no row of this ledger: flags.jsonl has ids, and lines, "
            "which count from 1"
        )
    if len(found) > 1:
        raise InputError(f"{excerpt(name, 80)} names more than one row: give more digits")
    return found[0]


def _was_singled_out(connection: Connection, row: int) -> bool:
    """Whether an audit flagged or rejected a row, or a person decided on it."""
    for table in (flags, rejections, decisions):
        if connection.execute(select(exists().where(table.c.row == row))).scalar_one():
            return True
    return False


def read_decisions(ledger: Ledger) -> Iterator[Decision]:
    """Every decision, oldest first."""
    with ledger.read() as connection:
        yield from read_decisions_in(connection)


def read_decisions_in(connection: Connection, *where: ColumnElement[bool]) -> Iterator[Decision]:
    """Every decision in a state of the ledger (that fulfils `where`), oldest first."""
    columns = [decisions.c[name] for name in Decision.__dataclass_fields__]
    query = select(*columns).where(*where).order_by(decisions.c.number)
    for row in connection.execute(query.execution_options(yield_per=ROWS_PER_READ)):
        fields = dict(row._mapping)
        if isinstance(row.repaired_id, bytes):
            fields["repaired_id"] = row.repaired_id.hex()
        yield Decision(**fields)


@retried
def find_replaced(ledger: Ledger, made: Sequence[Decision]) -> dict[int, str]:
    """What was decided otherwise before of the rows of these decisions: the verdicts whose place
    they took, by their numbers. `unsure` is no decision that one could miss.
    """
    earlier, mine, old = decisions.alias(), decisions.alias(), decisions.alias()
    last = (
        select(func.max(earlier.c.number))
        .where(earlier.c.row == mine.c.row, earlier.c.number < mine.c.number)
        .correlate(mine)
        .scalar_subquery()
    )
    is_other = (old.c.verdict != mine.c.verdict) | old.c.answer.is_distinct_from(mine.c.answer)
    query = (
        select(mine.c.number, old.c.verdict)
        .select_from(mine.join(old, old.c.number == last))
        .where(old.c.verdict != "unsure", is_other)
    )
    found: dict[int, str] = {}
    with ledger.read() as connection:
        for some in batched([each.number for each in made], VALUES_PER_STATEMENT):
            found.update(connection.execute(query.where(mine.c.number.in_(some))).tuples().all())
    return found


@retried
def verify_chain(ledger: Ledger) -> tuple[int, str]:
    """The number of decisions and the last one's hash. Raises InputError where the chain was
    tampered with.
    """
    with ledger.read() as connection:
        return verify_decisions(connection)


def verify_decisions(connection: Connection) -> tuple[int, str]:
    """The same in a state of the ledger."""
    number, previous = 0, CHAIN_START
    for decision in read_decisions_in(connection):
        number += 1
        expected = number, previous, decision.compute_hash()
        if (decision.number, decision.previous, decision.hash) != expected:
            raise InputError(
                f"decision {number} of the ledger was changed or removed after it was written: "
                "restore the ledger from a backup"
            )
        previous = decision.hash
    return number, previous
