"""The report of what was expected of rows: a page for people and a file for programs, written also
where an audit stops at it.
"""

import json
from pathlib import Path

from poisonwatch.reports.templating import load_template
from poisonwatch.validation import Validation

LONGEST_CHECK_TEXT = 300  # characters of a reason, or of what was observed


def render_validation(validation: Validation, name: str) -> str:
    """A table of the checks of the audit `name` as an HTML document, those that failed first.

    Reasons come from the audit file, and what was observed may hold values of rows: every text is
    made visible and escaped.
    """
    return load_template("validation.html.j2").render(
        validation=validation,
        name=name,
        # False sorts before True, and a stable sort keeps the order of the audit file.
        checks=sorted(validation.checks, key=lambda check: check.passed),
        longest_text=LONGEST_CHECK_TEXT,
    )


def write_validation(folder: Path, validation: Validation) -> None:
    """`validation.json` (in ASCII: hostile text stays inert in any terminal or editor)."""
    record = json.dumps(validation.to_record(), indent=2)
    (folder / "validation.json").write_text(record + "\n", encoding="ascii")


def write_validation_page(folder: Path, validation: Validation, name: str) -> None:
    """`validation.html`, of the audit `name`."""
    (folder / "validation.html").write_text(render_validation(validation, name), encoding="utf-8")
