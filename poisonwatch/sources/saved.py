"""Data sets that `datasets` saved (save_to_disk), each a folder with a description of what is in
it; and releases, whose manifest is one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.formats.fields import KNOWN_NAMES
from poisonwatch.text.display import excerpt

STATE = "state.json"
SPLITS = "dataset_dict.json"
INFO = "dataset_info.json"
# Files that describe data sets where they hold an object such as these tools write; by any other
# content they are rows.
DESCRIPTIONS = (STATE, SPLITS, INFO, "dataset_infos.json")
MANIFEST_NAME = "manifest.json"
MANIFEST_START = b'{"manifest":'
SIGNED_NAME = "manifest.dsse.json"  # the signed statement on a manifest
# What stands beside the cleared rows of a release, and is not to be trained on. What is held back
# does only in releases of earlier versions.
ACCOUNTS = (MANIFEST_NAME, SIGNED_NAME, "quarantine.jsonl", "rejected.jsonl")
MAX_DESCRIPTION_BYTES = 16 << 20
_SHUFFLED = ("_indices_files", "_indices_data_files")


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved a data set, or several splits of one, in a folder on this
    machine.
    """
    for name in (STATE, SPLITS):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                return parse_description(name, file.read(MAX_DESCRIPTION_BYTES)) is not None
    return False


def parse_description(name: str, content: bytes) -> Mapping[str, Any] | None:
    """The object that a file of one of the DESCRIPTIONS' names holds; None where it is no
    description.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or _is_row(record):
        return None
    if name == STATE:
        known = isinstance(record.get("_data_files"), list)
    elif name == SPLITS:
        known = isinstance(record.get("splits"), list)
    else:
        is_catalogue = all(isinstance(value, dict) for value in record.values())
        known = "features" in record or "builder_name" in record or is_catalogue
    if not known:
        return None
    return record


def _is_row(record: Mapping[str, Any]) -> bool:
    """Whether an object holds fields of a row, and so is one whatever else it holds."""
    named = {key.lower() for key, value in record.items() if not isinstance(value, dict)}
    return not named.isdisjoint(KNOWN_NAMES)


def list_data_files(state: Mapping[str, Any], name: str) -> list[str]:
    """The files of a saved data set in order, by its state.json; `name` stands for its folder.

    Raises SourceError where the rows are not those of the files, or a file lies elsewhere.
    """
    for key in _SHUFFLED:
        if state.get(key):
            raise SourceError(
                f"{name} was saved with a list of which rows count ({key} in {STATE}): load it, "
                "and save what `flatten_indices()` gives"
            )
    files = []
    for entry in state["_data_files"]:
        file = entry.get("filename") if isinstance(entry, dict) else entry
        files.append(_check_plain_name(file, name, STATE))
    if len(set(files)) < len(files):
        raise SourceError(
            f"{name} cannot be read: its {STATE} names one file more than once, whose rows would "
            "be loaded as often; save the data set again"
        )
    if state.get("_format_columns") is not None:
        raise SourceError(
            f"{name} was saved with some columns hidden (_format_columns in {STATE}): load it, "
            "call `reset_format()`, and save it again"
        )
    return files


def list_splits(description: Mapping[str, Any], name: str) -> list[str]:
    """The splits of a saved DatasetDict, each a folder in its own. Raises SourceError where one
    lies elsewhere.
    """
    return [_check_plain_name(split, name, SPLITS) for split in description["splits"]]


def _check_plain_name(value: Any, folder: str, description: str) -> str:
    """The name of something in a folder. Raises SourceError where it leads elsewhere."""
    if not isinstance(value, str) or "/" in value or value in ("", ".", ".."):
        raise SourceError(
            f"{folder} cannot be read: its {description} names {excerpt(repr(value))}, which is "
            "no name of something in this folder"
        )
    return value
