"""Flagged rows as a CSV file that no spreadsheet takes for formulas."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from poisonwatch.exports.flagged import FACTS, get_fact
from poisonwatch.flags import read_flagged_example
from poisonwatch.text.display import make_visible

TEXT_COLUMNS = ("tools", "prompt", "response", "lowered", "rejected_response")
# What a spreadsheet takes for a formula where a cell begins with it.
FORMULA_STARTS = tuple("=+-@\t\r|%＝＋－＠")


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Flags as CSV: every text is made visible, and one that begins like a formula gets an
    apostrophe before it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([*FACTS, *TEXT_COLUMNS, "reasons"])
    for row in rows:
        example = read_flagged_example(row)
        cells = [get_fact(row, name) for name in FACTS]
        cells += [getattr(example, column) for column in TEXT_COLUMNS]
        cells.append("; ".join(row["reasons"]))
        writer.writerow([neutralise_cell(cell) for cell in cells])
    return file.getvalue()


def neutralise_cell(value: Any) -> Any:
    """A value for a cell: numbers stay numbers; text never begins like a formula (OWASP, CSV
    injection).
    """
    if not isinstance(value, str):
        return value
    text = make_visible(value)
    # Stripped as well, since spreadsheets leave out blanks before they look; as it is, since two of
    # the starts are blanks themselves.
    if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS):
        return f"'{text}"
    return text
