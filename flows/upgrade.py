"""What this version would change for an audit that an earlier one looked after, and the change:
ledger and MLflow store, each copied first where it is a file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poisonwatch import __version__
from poisonwatch.config import AuditConfig, find_old_keys
from poisonwatch.errors import OperationError
from poisonwatch.integrations.mlflow.store import StoreState, find_store, upgrade_store
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.upgrades import (
    ROOM_FACTOR,
    LedgerUpgrade,
    copy_ledger,
    find_ledger_file,
    plan_ledger_upgrade,
)
from poisonwatch.sources.files import EXTRAS
from poisonwatch.text.safe_yaml import parse_yaml, read_yaml_text
from poisonwatch.text.words import plural

MEGABYTE = 1e6


@dataclass(kw_only=True)
class Upgrade:
    """The ledger's upgrade, the MLflow store's where it is a file, and a line each of: what
    `poisonwatch upgrade` does (`changes`), what a person has to do (`needs`), and what to know
    (`notes`).
    """

    ledger: LedgerUpgrade
    store: StoreState | None
    changes: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do, for this command or a person."""
        return not self.changes and not self.needs

    def to_record(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "poisonwatch": __version__,
            "written_by": self.ledger.written_by,
            "revision": self.ledger.revision,
            "newest": self.ledger.newest,
            "migrations": [migration.revision for migration in self.ledger.migrations],
            "mlflow": None if self.store is None else self.store.revision,
            "mlflow_newest": None if self.store is None else self.store.newest,
            "changes": self.changes,
            "needs": self.needs,
            "notes": self.notes,
            "done": self.is_done,
        }


def plan_upgrade(config: AuditConfig, path: Path) -> Upgrade:
    """What there is to do for the audit file at `path`; changes nothing. Raises what
    `plan_ledger_upgrade` and `find_store` do.
    """
    ledger, store = plan_ledger_upgrade(config), find_store(config)
    upgrade = Upgrade(ledger=ledger, store=store)
    for migration in ledger.migrations:
        upgrade.changes.append(f"ledger {migration.revision}: {migration.about}")
    if store is not None and not store.is_current and not store.is_newer:
        upgrade.changes.append(f"MLflow's store {store.file}: {store.revision} to {store.newest}")
    upgrade.needs += _list_needs(config, upgrade)
    upgrade.notes += _list_notes(ledger)
    for old, new in _read_old_keys(path).items():
        upgrade.notes.append(f"{path}: `{old}` is called `{new}` now; the old name is read still")
    return upgrade


def carry_out(config: AuditConfig, upgrade: Upgrade) -> list[Path]:
    """Make the changes, with a copy first of each file: the copies.

    Raises OperationError where an audit is at work, or something fails: what was not upgraded then
    is as it was.
    """
    ledger, store, copies = upgrade.ledger, upgrade.store, list[Path]()
    _require_idle(ledger)
    if ledger.lacks_room:
        raise OperationError(_tell_room(ledger))
    if ledger.migrations:
        file = find_ledger_file(config)
        if file is not None:
            copies.append(copy_ledger(file, ledger.revision))
        # Whoever opens it migrates it, in one transaction.
        with Ledger.existing(config.state):
            pass
    if store is not None and not store.is_current and not store.is_newer:
        copies.append(copy_ledger(store.file, store.revision))
        upgrade_store(store.file)
    return copies


def _require_idle(ledger: LedgerUpgrade) -> None:
    if ledger.migrations and ledger.at_work:
        raise OperationError(
            f"{plural(len(ledger.at_work), 'audit')} at work ({', '.join(ledger.at_work[:3])}): "
            "stop what starts audits, and run again once they have ended"
        )


def _list_needs(config: AuditConfig, upgrade: Upgrade) -> Iterator[str]:
    """What only a person can do."""
    ledger, store = upgrade.ledger, upgrade.store
    if ledger.migrations and ledger.at_work:
        names = ", ".join(ledger.at_work[:3])
        yield f"audits at work ({names}): stop what starts them, and wait until they have ended"
    if ledger.lacks_room:
        yield _tell_room(ledger)
    if store is not None and store.is_newer:
        yield (
            f"MLflow's store {store.file} is of a newer MLflow than the one that is installed: "
            "install that one, or restore the store from before"
        )
    for extra, what in list_missing_extras(config, _is_installed):
        yield f"{what} needs an extra that is missing: pip install 'poisonwatch[{extra}]'"


def _tell_room(ledger: LedgerUpgrade) -> str:
    needed, free = ROOM_FACTOR * ledger.size / MEGABYTE, (ledger.free or 0) / MEGABYTE
    return f"the migration and a copy may take {needed:,.0f} MB, and {free:,.0f} are free"


def _list_notes(ledger: LedgerUpgrade) -> Iterator[str]:
    """What to know beforehand, and what the next audit does that others did not."""
    if ledger.migrations and ledger.free is None:
        yield "the ledger is on a server, and is not copied: back it up (pg_dump) first"
    if ledger.files:
        yield (
            f"the next pull reads {plural(ledger.files, 'file')} "
            f"({plural(ledger.rows, 'row')}) anew: rows that are read as before stay as they are"
        )
    if ledger.is_judged_otherwise:
        yield (
            "the next audit audits the latest rows again (`window:`): the settings that shape "
            "verdicts are others than the last audit's, or of another version"
        )


def list_missing_extras(
    config: AuditConfig, is_installed: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    """Extras that the audit file's settings need, and what needs them, of packages that are not
    installed.
    """
    wanted = [
        ("adapters", "peft", "model.adapter", config.model.adapter is not None),
        ("languages", "py3langid", "validation.languages", bool(config.validation.languages)),
        ("postgres", "psycopg", "state", config.state.startswith("postgres")),
        ("ray", "ray", "compute", config.compute.engine == "ray"),
    ]
    for source in (config.source, config.reference):
        scheme = "" if source is None else (source.path or "").partition("://")[0]
        if scheme in EXTRAS:
            package, extra = EXTRAS[scheme]
            wanted.append((extra, package, f"a source at {scheme}://", True))
    for extra, package, what, is_wanted in wanted:
        if is_wanted and not is_installed(package):
            yield extra, what


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _read_old_keys(path: Path) -> dict[str, str]:
    settings = parse_yaml(read_yaml_text(path))
    return find_old_keys(settings) if isinstance(settings, dict) else {}
