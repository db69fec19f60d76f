"""Where bytes of a content stand: in a source now, or where they did last."""

from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, select, true

from poisonwatch.ledger.tables import files, places, rows, variants

NOWHERE, PLACED, STOOD_LAST = 0, 1, 2


def check_own_places() -> ColumnElement[int]:
    """`check_places` of the bytes that rows came in first."""
    stood_last = rows.c.last_variant.is_(None)
    return check_places(rows.c.row, places.c.variant.is_(None), stood_last)


def select_variants() -> Select[Any]:
    """The variants of rows: row, variant, digest, shape, and whether they count (`stands`)."""
    stood_last = rows.c.last_variant == variants.c.variant
    stands = check_places(variants.c.row, places.c.variant == variants.c.variant, stood_last)
    columns = variants.c.row, variants.c.variant, variants.c.digest, variants.c.shape
    return select(*columns, stands).join(rows, rows.c.row == variants.c.row)


def check_places(
    row: ColumnElement[int], are_these: ColumnElement[bool], stood_last: ColumnElement[bool]
) -> ColumnElement[int]:
    """Whether bytes count: they are PLACED in a source, or, where no bytes of their row are, in a
    file that is gone; or, where none are, they STOOD_LAST.
    """

    def stand(these: ColumnElement[bool], now: ColumnElement[bool]) -> ColumnElement[bool]:
        at = (places.c.row == row) & (files.c.file == places.c.file)
        return exists().where(at, these, now)

    is_here = files.c.gone_at.is_(None)
    answer = case(
        (stand(are_these, is_here), PLACED),
        (stand(true(), is_here), NOWHERE),
        (stand(are_these, true()), PLACED),
        (stand(true(), true()), NOWHERE),
        (stood_last, STOOD_LAST),
        else_=NOWHERE,
    )
    return answer.label("stands")
