"""What pandas keeps beside an Arrow schema: by it, and by nothing in the rows, its readers may call
a column otherwise.
"""

import json
from collections.abc import Mapping
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.text.display import excerpt

PANDAS = b"pandas"
_MAX_NAME_CHARACTERS = 60


def list_renamed_columns(metadata: Mapping[bytes, bytes] | None) -> list[tuple[str, str]]:
    """Columns that pandas calls otherwise than they are called in the file: this name, and that of
    pandas.
    """
    try:
        described = json.loads((metadata or {}).get(PANDAS, b"{}"))
    # As pandas' readers do, who then go by the names in the file.
    except (ValueError, RecursionError):
        return []
    if not isinstance(described, dict) or not isinstance(described.get("columns"), list):
        return []
    renamed = []
    for column in described["columns"]:
        names = _get_names(column)
        if names is not None and names[0] != names[1]:
            renamed.append(names)
    return renamed


def _get_names(column: Any) -> tuple[str, str] | None:
    """A column's name in the file, and that of pandas; None where it has but one of them, as an
    index does.
    """
    if not isinstance(column, dict):
        return None
    name, field = column.get("name"), column.get("field_name")
    if not isinstance(name, str) or not isinstance(field, str):
        return None
    return field, name


def refuse_renamed_columns(metadata: Mapping[bytes, bytes] | None, name: str) -> None:
    """Raises SourceError where pandas would call a column of a file (`name`) otherwise."""
    for field, other in list_renamed_columns(metadata):
        raise SourceError(
            f"{name} has a column {excerpt(repr(field), _MAX_NAME_CHARACTERS)} that pandas is told "
            f"to call {excerpt(repr(other), _MAX_NAME_CHARACTERS)} (in the schema's metadata, "
            "'pandas'): write the file again without that"
        )
