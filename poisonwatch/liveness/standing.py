"""How an audit stands, for people and supervisors: whether audits come, what is owed and undecided,
disk, versions, servers; and what of it needs somebody.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from poisonwatch import __version__
from poisonwatch.config import AuditConfig
from poisonwatch.errors import ConfigError, InputError, OperationError, PoisonwatchError
from poisonwatch.ledger.agreement import Agreement, read_agreement
from poisonwatch.ledger.audit_records import find_audit_record
from poisonwatch.ledger.database import find_newest_revision
from poisonwatch.ledger.history import find_by_audit_id
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import OPENLINEAGE
from poisonwatch.ledger.owed import (
    Owed,
    count_undecided_rows,
    count_untold_movements,
    list_owed,
)
from poisonwatch.ledger.probe_looks import ProbeLook, find_look
from poisonwatch.ledger.probes import PastProbe, list_last_probes
from poisonwatch.ledger.read_only import open_to_read
from poisonwatch.ledger.schedules import record_schedule
from poisonwatch.liveness.liveness import (
    Liveness,
    count_audits,
    expect,
    find_liveness,
    tells_somebody,
    write_moment,
)
from poisonwatch.liveness.probes import count_waiting_checkpoints
from poisonwatch.liveness.reach import probe_all
from poisonwatch.model.cache import get_cache_folder
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.environment import expand_variables
from poisonwatch.text.redaction import show_place
from poisonwatch.text.sqlite_files import find_sqlite_file
from poisonwatch.text.words import plural

GIGABYTE = 1e9
MONTHS_SHOWN = 3  # of agreement
LEDGER_WAIT_S = 5  # for another process that writes to a ledger in SQLite
PREFECT_VARIABLE = "PREFECT_API_URL"


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Free bytes where something (`what`) is written."""

    what: str
    folder: str
    free: int


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server that the audit uses: its address as it may be shown, and what is wrong with it,
    empty where it answers.
    """

    name: str
    address: str
    problem: str


@dataclass(kw_only=True)
class Standing:
    """How the audit of a `name` stands at a moment. What could not be asked, since the ledger
    cannot be used, is None.

    `counts` and `parts_failed` are of the last audit; `probes` are the last of each checkpoint,
    latest first, `untold_movements` the models that moved and that not every alert target has heard
    of, and `waiting_checkpoints` those that should have been probed by now (None: no place is
    named); `probe_look` is the last look for them, with those that it could not probe (None also
    where there was none yet); `tells` says whether anybody hears where audits do not come, an alert
    target or a cron monitor; `troubles` are what needs somebody, a line each: empty where all is
    well.
    """

    name: str
    at: datetime
    liveness: Liveness | None = None
    counts: dict[str, int] = field(default_factory=dict)
    parts_failed: int = 0
    owed: list[Owed] | None = None
    agreement: list[Agreement] | None = None
    probes: list[PastProbe] | None = None
    untold_movements: int | None = None
    waiting_checkpoints: int | None = None
    probe_look: ProbeLook | None = None
    undecided: int | None = None
    disks: list[DiskSpace] = field(default_factory=list)
    versions: dict[str, str | None] = field(default_factory=dict)
    servers: list[ServerState] = field(default_factory=list)
    tells: bool = True
    troubles: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether nothing needs anybody."""
        return not self.troubles

    def to_record(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "name": self.name,
            "at": self.at.isoformat(timespec="seconds"),
            "well": self.is_well,
            "troubles": self.troubles,
            "audits": self.liveness and self.liveness.to_record(),
            "counts": self.counts,
            "parts_failed": self.parts_failed,
            "owed": self.owed and [asdict(owed) for owed in self.owed],
            "agreement": self.agreement and [asdict(month) for month in self.agreement],
            "undecided": self.undecided,
            "probes": self.probes and [probe.to_record() for probe in self.probes],
            "untold_movements": self.untold_movements,
            "waiting_checkpoints": self.waiting_checkpoints,
            "probe_look": self.probe_look and self.probe_look.to_record(),
            "disks": [asdict(disk) for disk in self.disks],
            "versions": self.versions,
            "servers": [asdict(server) for server in self.servers],
            "tells": self.tells,
        }


def gather_standing(
    config: AuditConfig,
    path: Path,
    target_names: Mapping[str, str],
    now: datetime,
    min_free: float,
) -> Standing:
    """How the audit of the file at `path` stands. `target_names` are its alert targets
    by their ids; less than `min_free` bytes of disk are too few.
    """
    standing = Standing(name=config.name, at=now, tells=tells_somebody(config))
    standing.versions["poisonwatch"] = __version__
    folder = path.resolve().parent
    runs = folder / "runs"
    try:
        with open_to_read(config.state, LEDGER_WAIT_S) as ledger:
            runs = _ask_ledger(ledger, standing, config, target_names) or runs
    except InputError as error:
        # Also a ledger that is not there yet.
        standing.troubles.append(str(error))
    except PoisonwatchError as error:
        standing.troubles.append(config.find_secrets().conceal_error(error))
    standing.servers = _ask_servers(config)
    for server in standing.servers:
        if server.problem:
            standing.troubles.append(f"{server.name} at {server.address} {server.problem}")
    folders = {"runs": runs, **_locate_files(config), "cache": get_cache_folder()}
    standing.disks = _measure_disks(folders)
    for disk in standing.disks:
        if disk.free < min_free:
            left = f"{disk.free / GIGABYTE:.1f} GB left for {disk.what} ({disk.folder})"
            standing.troubles.append(f"{left}: free some, or the next audit may fail")
    return standing


def _ask_ledger(
    ledger: Ledger, standing: Standing, config: AuditConfig, target_names: Mapping[str, str]
) -> Path | None:
    """Note what the ledger knows; returns the folder of the last run directory, if any."""
    # Who may only read sees a new schedule as one that begins now.
    with suppress(SQLAlchemyError, OperationError), ledger.write() as connection:
        record_schedule(connection, config.name, config.schedule, standing.at)
    with ledger.read() as connection:
        expected = expect(connection, config.name, config.schedule, standing.at)
        standing.owed = _leave_out_unnamed(
            list_owed(connection, config.name, list(target_names)), config
        )
        standing.undecided = count_undecided_rows(connection, config.name)
        standing.untold_movements = count_untold_movements(
            connection, config.name, list(target_names)
        )
        # What an audit file does not ask for any more is nobody's trouble.
        if config.probe.checkpoints is not None:
            standing.probe_look = find_look(connection, config.name)
        standing.agreement = read_agreement(connection, config.name)[-MONTHS_SHOWN:]
    standing.probes = list_last_probes(ledger, config.name)
    last_probe = None
    if standing.probes:
        last_probe = datetime.fromisoformat(standing.probes[0].recorded_at)
    standing.waiting_checkpoints = count_waiting_checkpoints(config, last_probe, standing.at)
    liveness = find_liveness(ledger, config.name, expected, standing.at)
    standing.liveness = liveness
    standing.versions["ledger"] = find_newest_revision()
    _find_troubles(ledger, standing, liveness, target_names)
    if liveness.last is None:
        return None
    past = find_by_audit_id(ledger, liveness.last.audit_id)
    assert past is not None
    standing.counts = dict(past.summary.get("counts", {}))
    standing.parts_failed = len(past.summary.get("failures", ()))
    with ledger.read() as connection:
        standing.versions["last audit"] = _find_version(connection, past.audit_id)
    return past.run_dir.parent


def _leave_out_unnamed(owed: list[Owed], config: AuditConfig) -> list[Owed]:
    """Without what a server is owed that neither audit file nor environment names any more."""
    if config.openlineage.find_url():
        return owed
    return [each for each in owed if each.target != OPENLINEAGE]


def _find_version(connection: Connection, audit_id: str) -> str | None:
    """The Poisonwatch of an audit; None where its record does not say, or is none."""
    try:
        record = find_audit_record(connection, audit_id)
    except InputError:
        return None
    if record is None:
        return None
    said = record.statement.predicate.get("poisonwatch")
    return None if said is None else str(said)


def _find_troubles(
    ledger: Ledger, standing: Standing, liveness: Liveness, target_names: Mapping[str, str]
) -> None:
    """What the ledger knows that needs somebody."""
    if liveness.is_overdue:
        standing.troubles.append(f"audits do not come: {liveness.describe()}")
    elif not count_audits(ledger, standing.name):
        standing.troubles.append(
            f"no audit of {standing.name} has run: run `poisonwatch audit`, or `poisonwatch watch`"
        )
    elif liveness.last is None and liveness.at_work_since is None:
        standing.troubles.append(
            f"{plural(liveness.failed, 'audit')} began, and none came to its results: "
            "run `poisonwatch audit` to see why"
        )
    for owed in standing.owed or ():
        if owed.is_failing(standing.at):
            target = target_names.get(owed.target, owed.target)
            since = write_moment(datetime.fromisoformat(owed.since))
            standing.troubles.append(
                f"{plural(owed.count, owed.kind)} not delivered to {target} since "
                f"{since}: {owed.reason or 'run `poisonwatch sync` to see why'}"
            )


def _locate_files(config: AuditConfig) -> dict[str, Path]:
    """Where ledger and MLflow store lie, those that are files of this machine."""
    found = {}
    for what, url, key in (
        ("ledger", config.state, "state"),
        ("MLflow", config.tracking, "tracking"),
    ):
        if url is None or not url.startswith("sqlite"):
            continue
        file = find_sqlite_file(parse_database_url(url, key).database)
        if file is not None:
            found[what] = file.parent
    return found


def _measure_disks(folders: dict[str, Path]) -> list[DiskSpace]:
    """Free space by disk: what lies on one is named together. A folder that is not there yet is on
    the disk of the nearest one that is.
    """
    by_disk: dict[int, DiskSpace] = {}
    for what, folder in folders.items():
        place = next((part for part in (folder, *folder.parents) if part.is_dir()), None)
        if place is None:
            continue
        try:
            disk, free = place.stat().st_dev, shutil.disk_usage(place).free
        except OSError:
            continue
        known = by_disk.get(disk)
        if known is not None:
            what = f"{known.what}, {what}"
            place = Path(known.folder)
        by_disk[disk] = DiskSpace(what, str(place), free)
    return list(by_disk.values())


def _ask_servers(config: AuditConfig) -> list[ServerState]:
    """MLflow, and Prefect where the environment names a server."""
    addresses, shown = {}, {}
    if config.tracking is not None:
        try:
            addresses["MLflow"] = (expand_variables(config.tracking, "tracking"), "/health")
            shown["MLflow"] = show_place(config.tracking, of_server=True)
        except ConfigError as error:
            return [ServerState("MLflow", config.tracking, str(error))]
    prefect = os.environ.get(PREFECT_VARIABLE)
    if prefect:
        addresses["Prefect"] = (prefect, "/health")
        shown["Prefect"] = show_place(prefect, of_server=True)
    problems = probe_all(addresses)
    return [ServerState(name, shown[name], problem) for name, problem in problems.items()]
