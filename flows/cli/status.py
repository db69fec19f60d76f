"""What `poisonwatch status` does. Heavy imports wait until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from poisonwatch.errors import InputError, PoisonwatchError

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig
    from poisonwatch.liveness.standing import Standing

EXIT_UNWELL = 1


def status(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON object.")
    ] = False,
    prometheus: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Print metrics in Prometheus' text format, as for node_exporter's textfile "
            "collector.",
        ),
    ] = False,
    alert: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Tell the audit file's alert targets of audits that do not come, once a silence, "
            "and once that they are back.",
        ),
    ] = False,
    min_free_gb: Annotated[
        float,
        Parameter(
            validator=validators.Number(gte=0), help="Less free disk than this is too little."
        ),
    ] = 1.0,
    forget_schedule: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Expect no audits any more, where the ledger remembers a schedule that the audit "
            "file does not name.",
        ),
    ] = False,
) -> int:
    """Say how the audit stands, on one screen: whether audits come, what is owed, disk, servers.

    Exit code 0: all is well; 1: something needs a person (audits overdue, messages that do not
    arrive, little disk, a server that cannot be reached); 2: the audit file cannot be used.

    Example: `poisonwatch status my-audit/audit.yaml`
    """
    import json as json_module
    from datetime import UTC, datetime

    from poisonwatch.alerts.targets import list_targets
    from poisonwatch.concealment import conceal_all
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.cli.status_page import build_page
    from poisonwatch.liveness.metrics import write_metrics
    from poisonwatch.liveness.standing import GIGABYTE, gather_standing

    if json and prometheus:
        raise InputError("--json and --prometheus are two ways to print: leave one of them out")
    # libpq's own patience with a server that does not answer is minutes
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
    settings = load_config(config)
    names = {target.id: str(target) for target in list_targets(settings)}
    problem = ""
    with conceal_all(settings.find_secrets()):
        if forget_schedule:
            _forget_schedule(settings, config)
        if alert:
            from poisonwatch.integrations.notices import tell_silences

            try:
                tell_silences(settings, datetime.now(UTC))
            except PoisonwatchError as error:
                problem = str(error)
        standing = gather_standing(
            settings,
            config,
            names,
            datetime.now(UTC),
            min_free_gb * GIGABYTE,
        )
    if problem and problem not in standing.troubles and not _tells_of_notices(standing):
        standing.troubles.append(problem)
    if json:
        print(json_module.dumps(standing.to_record()))
    elif prometheus:
        print(write_metrics(standing), end="")
    else:
        print("\n".join(build_page(standing, names)))
    return 0 if standing.is_well else EXIT_UNWELL


def _tells_of_notices(standing: "Standing") -> bool:
    """Whether it is told already which notices do not arrive, and why."""
    from poisonwatch.ledger.outbox import NOTICE_KIND

    owed = standing.owed or ()
    return any(each.kind == NOTICE_KIND and each.is_failing(standing.at) for each in owed)


def _forget_schedule(settings: "AuditConfig", path: Path) -> None:
    """Raises InputError where the audit file itself says when audits are expected."""
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.schedules import forget_schedule

    if settings.schedule.is_set:
        raise InputError(f"{path} says when audits are expected: take `schedule:` out of it first")
    with Ledger.existing(settings.state) as ledger, ledger.write() as connection:
        forget_schedule(connection, settings.name)
