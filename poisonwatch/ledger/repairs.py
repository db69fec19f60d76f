"""Rows that are changed rather than left out: what a decision to flip or to edit makes of a row.

The source keeps the row as it is. Of every place that holds it, a release writes the changed bytes,
in the format that they came in; the decision keeps the id of the changed content, and of an edited
one the answer, so that anybody can compute the change again.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from poisonwatch.errors import InputError
from poisonwatch.examples import Example, RawRow
from poisonwatch.formats.format import Format
from poisonwatch.formats.repair import edit_record, flip_record
from poisonwatch.ledger.row_states import EDIT
from poisonwatch.ledger.shapes import parse_format
from poisonwatch.ledger.tables import rows, shapes, variants
from poisonwatch.screens.control_tokens import find_control_tokens
from poisonwatch.screens.invisible_characters import find_invisible_characters
from poisonwatch.sources.open import decode_row, encode_row
from poisonwatch.text.characters import CONTROL, REPLACEMENT, SAYS_SOMETHING
from poisonwatch.text.display import excerpt
from poisonwatch.text.invisible import describe_characters, find_hidden

CLEARED = ("clean", "released")


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done to a row: a `verdict` of REPAIRS, and for an edit the `answer`."""

    verdict: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class RowShape:
    """How the bytes of a row are read: None where they cannot be, or are JSON."""

    format: Format | None
    schema: bytes | None


@dataclass(frozen=True, slots=True)
class RepairedRow:
    """A changed row: its bytes, and what is read of them."""

    raw: bytes
    example: Example


def repair_bytes(raw: bytes, shape: RowShape, repair: Repair) -> RepairedRow:
    """The changed row of these bytes. Raises InputError where they cannot be changed so."""
    if shape.format is None:
        raise _refuse(repair, "it cannot be read")
    try:
        record = decode_row(raw, shape.schema)
        if repair.verdict == EDIT:
            changed = edit_record(record, shape.format, repair.answer or "")
        else:
            changed = flip_record(record, shape.format)
        encoded = encode_row(raw, shape.schema, changed)
    except ValueError as error:
        raise _refuse(repair, str(error)) from None
    example = shape.format.read(changed).to_example(RawRow("", 0, "", changed, raw=encoded))
    assert example is not None  # or it would not have been found
    return RepairedRow(encoded, example)


def compute_repaired_id(connection: Connection, row: int, repair: Repair) -> str:
    """The id of what a row of the ledger becomes. Raises InputError where the change is none, the
    changed row would not pass validation or a screen, or an audit or a person holds it back.
    """
    changed = [repair_bytes(raw, shape, repair) for raw, shape in read_versions(connection, row)]
    example = changed[0].example
    # Of one content in several formats, each must become the same.
    if any(other.example.id != example.id for other in changed):
        raise _refuse(repair, "its formats differ in what they make of it: edit it in the source")
    found = select(rows.c.row, rows.c.status).where(rows.c.id == bytes.fromhex(example.id))
    known = connection.execute(found).one_or_none()
    if known is not None and known.row == row:
        raise _refuse(repair, "that changes nothing")
    if known is not None and known.status not in CLEARED:
        raise _refuse(repair, f"it would be a row that is {known.status} itself")
    problem = find_problem(example)
    if problem is not None:
        raise _refuse(repair, f"it would not validate: {problem}")
    return example.id


def read_versions(connection: Connection, row: int) -> Iterator[tuple[bytes, RowShape]]:
    """The bytes of a row and of its variants, and how each are read."""
    own = select(rows.c.raw, rows.c.shape).where(rows.c.row == row)
    others = select(variants.c.raw, variants.c.shape).where(variants.c.row == row)
    for raw, shape in connection.execute(own.union_all(others)).tuples().all():
        yield raw, load_shape(connection, shape)


def load_shape(connection: Connection, shape: int) -> RowShape:
    """How bytes of the shape with this number are read."""
    query = select(shapes.c.format, shapes.c.schema).where(shapes.c.shape == shape)
    format, schema = connection.execute(query).tuples().one()
    return RowShape(parse_format(format), schema)


def find_problem(example: Example) -> str | None:
    """Why a changed row would be rejected or flagged by its text, in words; None where nothing is
    wrong.
    """
    for message in example.all_messages:
        text = message.content
        if not re.search(SAYS_SOMETHING, text):
            return f"the {message.role}'s text is empty"
        if REPLACEMENT in text:
            return f"the {message.role}'s text is not valid Unicode (or was damaged before)"
        hidden = Counter(CONTROL.findall(text)) + Counter(find_hidden(text))
        if hidden:
            return f"the {message.role}'s text holds {describe_characters(hidden)}"
    # The other screens look across rows.
    for finding in (*find_invisible_characters([example]), *find_control_tokens([example])):
        return finding.reason.rstrip(".")
    return None


def _refuse(repair: Repair, why: str) -> InputError:
    return InputError(f"the row cannot be changed by {repair.verdict}: {excerpt(why, 300)}")
