"""The folder of an audit that is started from a notebook: rows, sentinels and an audit file, as
the command line has them.
"""

import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeAlias

import yaml

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import SentinelError
from poisonwatch.flows.notebook.rows import GivenRows, Rows, take_rows, write_rows
from poisonwatch.permissions import make_private_folder
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.environment import expand_home

AUDIT_FILE = "audit.yaml"
SENTINELS_FILE = "sentinels.yaml"
LEDGER = "sqlite:///poisonwatch.db"

# A pack or a file by its name, or a sentinel itself: as an object, or as YAML would have it.
Asked: TypeAlias = str | Path | Sentinel | Mapping[str, Any]
Sentinels: TypeAlias = Asked | Sequence[Asked]


class LentFolder:
    """A folder that goes with this object, or with the process."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="poisonwatch-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Site:
    """An audit file with its settings, and the rows that were `given`; None where they are read
    from a place. A folder that is only `lent` goes once nobody holds it.
    """

    file: Path
    config: AuditConfig
    given: GivenRows | None
    lent: LentFolder | None


def write_site(
    rows: Rows,
    sentinels: Sentinels,
    reference: Rows | None,
    model: str | Path | Mapping[str, Any],
    folder: str | Path | None,
    settings: Mapping[str, Any],
) -> Site:
    """Write what an audit of these rows needs into a folder; None: one that goes with the site.

    Raises InputError for rows of another type, SentinelError for such sentinels, and ConfigError
    for settings that no audit file may have.
    """
    lent = None
    if folder is None:
        lent = LentFolder()
        folder = lent.path
    site = expand_home(folder).absolute()
    make_private_folder(site)
    given = take_rows(rows, "rows")
    file: dict[str, Any] = {
        "name": "notebook",
        "model": _name_model(model),
        "source": _place_rows(given, site / "rows.jsonl"),
        "sentinels": _place_sentinels(sentinels, site),
        "state": LEDGER,
    }
    if reference is not None:
        trusted = take_rows(reference, "reference")
        file["reference"] = _place_rows(trusted, site / "reference.jsonl")
    with replace_file(site / AUDIT_FILE) as part:
        part.write_text(yaml.safe_dump(file | dict(settings), sort_keys=False), encoding="utf-8")
    config = load_config(site / AUDIT_FILE)
    held = given if isinstance(given, GivenRows) else None
    return Site(site / AUDIT_FILE, config, held, lent)


def _place_rows(given: GivenRows | dict[str, Any], file: Path) -> dict[str, Any]:
    """The settings of the source that has the rows."""
    if isinstance(given, dict):
        return given
    write_rows(given, file)
    return {"path": file.name}


def _name_model(model: str | Path | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(model, Mapping):
        return dict(model)
    # a folder is looked for where the notebook runs, not where the audit file lies
    folder = expand_home(model)
    return str(folder.absolute()) if folder.is_dir() else str(model)


def _place_sentinels(sentinels: Any, site: Path) -> list[str]:
    """The places of sentinels; those that have none are written to a file. Raises SentinelError
    where one is of another type.
    """
    is_one = isinstance(sentinels, (str, Path, Mapping)) or not isinstance(sentinels, Sequence)
    asked = [sentinels] if is_one else sentinels
    places, entries = [], []
    for one in asked:
        if isinstance(one, (str, Path)):
            places.append(_name_place(str(one)))
        elif isinstance(one, Sentinel):
            entries.append(_describe_sentinel(one))
        elif isinstance(one, Mapping):
            entries.append(dict(one))
        else:
            raise SentinelError(
                f"a sentinel is of the type {type(one).__name__}: give a pack (pack:NAME), a "
                "file, or a dictionary with id, prompt, forbidden and/or reference"
            )
    if entries:
        with replace_file(site / SENTINELS_FILE) as part:
            part.write_text(yaml.safe_dump(entries, allow_unicode=True), encoding="utf-8")
        places.append(SENTINELS_FILE)
    return places


def _name_place(place: str) -> str:
    """A pack, or a file that is looked for where the notebook runs."""
    if place.startswith(PACK_PREFIX):
        return place
    return str(expand_home(place).absolute())


def _describe_sentinel(sentinel: Sentinel) -> dict[str, Any]:
    """A sentinel as a YAML file has it."""
    record = asdict(sentinel)
    messages = [{"role": each.role, "content": each.content} for each in sentinel.messages]
    record |= {"messages": messages, "tags": list(sentinel.tags)}
    del record["trigger"]
    return {name: value for name, value in record.items() if value is not None}
