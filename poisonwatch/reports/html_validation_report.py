"""What validation found, for people and programs: `validation.html`, one file that needs nothing else, and `validation.json`."""

import json
from pathlib import Path

from poisonwatch.reports.templating import template
from poisonwatch.validation import Validation

LONGEST_TEXT = 300  # characters of a reason, or of what was observed


def render_validation(validation: Validation, name: str) -> str:
    """A table of the checks of the audit `name` as an HTML document, those that failed first.

    Reasons come from the audit file, and what was observed may hold values of rows: every text is made visible and escaped.
    """
    return template("validation.html.j2").render(
        validation=validation,
        name=name,
        checks=sorted(validation.checks, key=lambda check: check.passed),
        longest_text=LONGEST_TEXT,
    )


def write_validation(folder: Path, validation: Validation, name: str) -> None:
    """`validation.html` and `validation.json` (in ASCII: hostile text stays inert in any terminal or editor)."""
    (folder / "validation.html").write_text(render_validation(validation, name), encoding="utf-8")
    (folder / "validation.json").write_text(json.dumps(validation.to_record(), indent=2) + "\n", encoding="ascii")
