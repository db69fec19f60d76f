"""What people decide on rows: an append-only chain.

    hash_n = SHA-256(number, example, verdict, note, author, time, hash_{n-1}),  hash_0 = 64 zeros

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

from sqlalchemy import Connection, Row, delete, desc, exists, insert, select, update

from poisonwatch.attestation.signer import Signer
from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.queries import ID_DIGITS, is_hex, match_id_prefix, select_rows_of_file
from poisonwatch.ledger.records import CHAIN_START, DECISION, append_record, lock_chain
from poisonwatch.ledger.row_states import find_audited_status
from poisonwatch.ledger.tables import decisions, flags, places, rejections, rows
from poisonwatch.ledger.team_tables import proposals
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.display import excerpt

Verdict = Literal["poison", "benign", "unsure"]
VERDICTS = get_args(Verdict)
MIN_ID_DIGITS = 8  # of an example id


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on the row with `example_id`, as it is in the chain."""

    number: int
    example_id: str
    verdict: str
    note: str
    author: str
    decided_at: str
    previous: str
    hash: str

    def compute_hash(self) -> str:
        """The hash that these fields should have."""
        fields = asdict(self)
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
) -> list[Decision]:
    """Append one verdict on each of several rows, on all or on none: a row is named by the first
    digits of its example id (at least 8) or as FILE:LINE, which counts from 1. With `unflagged`
    False, only rows that were flagged or rejected are decided on.

    A benign row is released next time and joins the trusted rows; a poisonous one stays in
    quarantine for good; unsure takes back what was decided before. Raises InputError where the
    verdict is none, or a row is not there, more than one, or was never flagged, and what the
    ledger's signer raises: then nothing is decided.
    """
    made = []
    with ledger.write() as connection:
        for row in find_rows(connection, names, unflagged):
            signer = ledger.signer
            decision = append_decision(connection, row, verdict, note, author=author, signer=signer)
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
        select(decisions.c.number, decisions.c.verdict, decisions.c.example_id)
        .where(decisions.c.row == row)
        .order_by(desc(decisions.c.number))
        .limit(2)
    )
    last = connection.execute(of_row).all()
    if not last or last[0].number != number:
        raise InputError(
            f"decision {number} cannot be undone: it is not the last one on its row; decide anew"
        )
    before = "unsure"
    if len(last) > 1 and restores:
        before = last[1].verdict
    found = _find_row(connection, last[0].example_id)
    note = f"undoes decision {number}"
    return append_decision(connection, found, before, note, author=author, signer=signer)


def append_decision(
    connection: Connection,
    found: Row[tuple[int, bytes, str]],
    verdict: str,
    note: str,
    author: str,
    signer: Signer | None,
) -> Decision:
    """`record_decision` within a transaction, on a row (row, id, status) that was found."""
    if verdict not in VERDICTS:
        raise InputError(
            f"the verdict {excerpt(verdict, 20)} is none: choose {', '.join(VERDICTS)}"
        )
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
    )
    made = replace(unsigned, hash=unsigned.compute_hash())
    connection.execute(insert(decisions).values(row=found.row, **asdict(made)))
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
    return {f"decision {decision.number}": decision.hash}, asdict(decision)


def _choose_status(connection: Connection, found: Row[tuple[int, bytes, str]], verdict: str) -> str:
    """What a row is from now on."""
    status = verdict
    if verdict == "unsure":
        status = find_audited_status(connection, found.row)
    elif verdict == "benign":
        status = "clean"
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


def read_decisions_in(connection: Connection) -> Iterator[Decision]:
    """Every decision in a state of the ledger, oldest first."""
    columns = [decisions.c[name] for name in Decision.__dataclass_fields__]
    for row in connection.execute(select(*columns).order_by(decisions.c.number)):
        yield Decision(**row._mapping)


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
