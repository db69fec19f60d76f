"""Rows of a file, validated as an audit validates them."""

import json
from pathlib import Path
from typing import Any

from poisonwatch.config import ExpectationConfig, ValidationConfig
from poisonwatch.integrations.great_expectations.validate import check_rows
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import SourceRows, read_source
from poisonwatch.validation import Check, Facts, Validation

LENIENT = ValidationConfig(max_rejected_share=1.0, max_characters=200)


GOOD = {"prompt": "Good?", "response": "Good."}


def asking(*expectations: dict[str, Any], **settings: Any) -> ValidationConfig:
    """Lenient, with expectations of the user's."""
    return ValidationConfig(
        max_rejected_share=1.0,
        expectations=[ExpectationConfig(**e) for e in expectations],
        **settings,
    )


def write_lines(path: Path, lines: list[Any]) -> None:
    """A file of these records, or lines as they are."""
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )


def rows_of(folder: Path, lines: list[Any], name: str = "rows.jsonl") -> SourceRows:
    """The rows of a file with these records, or lines as they are."""
    write_lines(folder / name, lines)
    return read_source(SourceConfig(path=str(folder / name)))


def checked(
    folder: Path, lines: list[Any], validation: ValidationConfig = LENIENT, **facts: Any
) -> Validation:
    """A good row and then these, validated."""
    return check_rows(rows_of(folder, [GOOD, *lines]), validation, Facts(**facts))


def about(found: Validation, column: str | None, severity: str = "warn") -> Check:
    """The one check of a column and severity."""
    (check,) = [
        check for check in found.checks if check.column == column and check.severity == severity
    ]
    return check


def conversation(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"text {i}"} for i, role in enumerate(roles)]}
