"""LLaMA-Factory's dataset_info.json: which files of its folder are data sets, and what their fields
and roles are called.

The names are those of its data/README.md; what a data set leaves out has LLaMA-Factory's default.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poisonwatch.text.display import excerpt

_ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_PLACES = ("file_name", *_ELSEWHERE)
_MAX_NAME_CHARACTERS = 60
# Fields of a format here, and the columns that give their names there.
_COMMON = {"system": "system", "history": "history", "label": "kto_tag"}
_ALPACA = {"instruction": "prompt", "input": "query", "output": "response", **_COMMON}
_PAIR = {"chosen": "chosen", "rejected": "rejected", "system": "system"}
_ALPACA_PAIR = {"prompt": "prompt", "input": "query", "history": "history", **_PAIR}
_SHAREGPT = {"conversations": "messages", "system": "system", "tools": "tools", "label": "kto_tag"}
_SHAREGPT_PAIR = {"conversations": "messages", "tools": "tools", **_PAIR}
_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "assistant",
    "system_tag": "system",
}

Settings = dict[str, Any]
"""What an audit file says of rows: `format`, `fields` and `roles`."""


def is_catalogue(record: Mapping[str, Any]) -> bool:
    """Whether the object of a dataset_info.json lists data sets, each with its place."""
    for entry in record.values():
        if not isinstance(entry, dict) or not any(key in entry for key in _PLACES):
            return False
    return bool(record)


@dataclass(slots=True)
class Catalogue:
    """How the files (or folders) of a catalogue's folder are to be read, by their paths in it; the
    `problems` that keep its data sets from being those files; and what is not followed (`ignored`).
    """

    settings: dict[str, Settings] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read_catalogue(record: Mapping[str, Any]) -> Catalogue:
    """What a catalogue says of the files of its folder.

    A problem is a data set that lies elsewhere, one that is described in a way that is not known,
    and one of whose file other columns are trained on by another name.
    """
    found = Catalogue()
    disputed = set()
    for name, entry in record.items():
        shown = f"{excerpt(name, _MAX_NAME_CHARACTERS)!r}"
        file = _find_file(entry)
        if file is None:
            found.problems.append(f"its data set {shown} lies outside of this folder")
            continue
        if entry.get("num_samples") is not None:
            found.ignored.append(f"num_samples of {shown}")
        settings = read_entry(entry)
        if settings is None:
            found.problems.append(f"its data set {shown} is described in a way that is not known")
            disputed.add(file)
        elif found.settings.setdefault(file, settings) != settings:
            found.problems.append(f"its data set {shown} has other columns of a file named before")
            disputed.add(file)
    for file in disputed:
        found.settings.pop(file, None)
    return found


def _find_file(entry: Mapping[str, Any]) -> str | None:
    """The path of a data set in the catalogue's folder; None where it lies elsewhere."""
    file = entry.get("file_name")
    # LLaMA-Factory loads from elsewhere what may come from there, too.
    if not isinstance(file, str) or any(entry.get(key) for key in _ELSEWHERE):
        return None
    path = posixpath.normpath(file)
    if path.startswith(("..", "/")) or ":" in path:
        return None
    return path


def read_entry(entry: Mapping[str, Any]) -> Settings | None:
    """How one data set is to be read; None where it is described in a way that is not known."""
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    if not _is_names(columns) or not _is_names(tags):
        return None
    formatting, ranking = entry.get("formatting") or "alpaca", bool(entry.get("ranking"))
    if formatting == "alpaca":
        return _read_alpaca(columns, ranking)
    if formatting == "sharegpt":
        return _read_sharegpt(
            columns, {"role_tag": "from", "content_tag": "value", **tags}, ranking
        )
    if formatting == "openai":
        return _read_sharegpt(
            columns, {"role_tag": "role", "content_tag": "content", **tags}, ranking
        )
    return None


def _read_alpaca(columns: Mapping[str, str], ranking: bool) -> Settings:
    columns = {"prompt": "instruction", "query": "input", "response": "output", **columns}
    if ranking:
        return {"format": "preference", "fields": _map_fields(_ALPACA_PAIR, columns), "roles": {}}
    return {"format": "alpaca", "fields": _map_fields(_ALPACA, columns), "roles": {}}


def _read_sharegpt(columns: Mapping[str, str], tags: Mapping[str, str], ranking: bool) -> Settings:
    columns = {"messages": "conversations", **columns}
    roles = {tags[tag]: role for tag, role in _ROLES.items() if tag in tags}
    if ranking:
        fields = _map_fields(_SHAREGPT_PAIR, columns)
        fields |= {"role": tags["role_tag"], "content": tags["content_tag"]}
        return {"format": "preference", "fields": fields, "roles": roles}
    fields = _map_fields(_SHAREGPT, columns)
    fields |= {"from": tags["role_tag"], "value": tags["content_tag"]}
    return {"format": "sharegpt", "fields": fields, "roles": roles}


def _map_fields(names: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, str]:
    """What fields are called, of those that have a column."""
    return {field: columns[column] for field, column in names.items() if column in columns}


def _is_names(value: Any) -> bool:
    """Whether this maps texts to texts."""
    if not isinstance(value, dict):
        return False
    return all(isinstance(text, str) for pair in value.items() for text in pair)
