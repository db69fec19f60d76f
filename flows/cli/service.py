"""What the commands do that serve a team: watch, sync, history, alert-test. Heavy imports wait
until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from poisonwatch.errors import ConfigError, InputError, OperationError, PoisonwatchError
from poisonwatch.flows.cli.audit import load_and_check

# What `sync` says of each task: "3 alerts delivered".
TASK_WORDS = {
    "read_reviews": "verdicts read",
    "deliver": "alerts delivered",
    "track": "audits uploaded to MLflow",
    "tell_lineage": "audits and releases told to OpenLineage",
    "queue_reviews": "rows put up for review",
    "publish": "audits shown in Prefect",
    "tell_silences": "notices of silence delivered",
}


def watch(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    every: Annotated[
        timedelta | None,
        Parameter(help="How often, as in 30m, 1h or 1d; the first audit comes at once."),
    ] = None,
    cron: Annotated[str | None, Parameter(help="When, as a cron expression.")] = None,
    timezone: Annotated[str, Parameter(help="Whose time --cron means.")] = "UTC",
    drill_every: Annotated[
        timedelta | None,
        Parameter(help="How often a drill shows what an audit would find, as in 7d."),
    ] = None,
    port: Annotated[
        int,
        Parameter(
            validator=validators.Number(gte=1, lte=65535),
            help="Where a Prefect server is started, if PREFECT_API_URL names none.",
        ),
    ] = 4200,
) -> None:
    """Audit on a schedule, from one process.

    The schedule is that of --every or --cron, or of `schedule:` in the audit file. The ledger
    remembers it: an audit that does not come is told of by whoever is alive (`poisonwatch status`).
    With `probe: out/checkpoint-*` in the audit file, each checkpoint that training leaves is probed
    once.

    Example: `poisonwatch watch my-audit/audit.yaml --every 1h`
    """
    settings = load_and_check(config)
    from poisonwatch.flows.times import choose_times, require_interval, require_times

    times = choose_times(settings.schedule, every, cron, timezone)
    require_times(times)
    if drill_every is not None:
        require_interval(drill_every)
    # below the checks: a mistake must not wait for torch and Prefect
    from poisonwatch.flows.liveness import keep_guard
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.flows.watch import make_interval, make_schedule
    from poisonwatch.flows.watch import watch as keep_watch

    drills = None if drill_every is None else make_interval(drill_every)
    schedule = make_schedule(*times)
    reporter = Reporter()
    with keep_guard(settings, times, reporter):
        keep_watch(config, settings, schedule, drills=drills, port=port, reporter=reporter)


def alert_test(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print a JSON object a target.")
    ] = False,
) -> int:
    """Send a test message to everybody whom an audit would tell of flagged rows: as long as a real
    one. PagerDuty, Opsgenie and Jira open an incident, and close it.

    Exit code 0: every target took it; 1: one did not.

    Example: `poisonwatch alert-test my-audit/audit.yaml`
    """
    from json import dumps

    from poisonwatch.alerts.targets import list_targets
    from poisonwatch.alerts.trial import make_trial_message
    from poisonwatch.config_file import load_config
    from poisonwatch.integrations.notify import send_message

    settings = load_config(config)
    targets = list_targets(settings)
    if not targets:
        raise ConfigError(
            f"{config} has no alerts: add `alerts:` with an Apprise URL or a Prefect block, "
            "and run again"
        )
    failed = 0
    # all are tried: one that does not answer says nothing about the others
    for target in targets:
        problem = None
        try:
            send_message(target, make_trial_message(settings))
        except PoisonwatchError as error:
            failed += 1
            problem = str(error)
        if json:
            told = {"alert": target.number, "kind": target.kind}
            print(dumps({**told, "delivered": problem is None, "problem": problem}))
            continue
        outcome = "delivered" if problem is None else f"failed: {problem}"
        print(f"alerts[{target.number}] {target.kind}: {outcome}")
    return int(failed > 0)


def sync(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> int:
    """Give MLflow, Prefect, OpenLineage and alert targets what they missed while they were down.

    Exit code 0: nothing is owed any more; 1: something is.

    Example: `poisonwatch sync my-audit/audit.yaml`
    """
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.flows.sync import sync as catch_up

    settings = load_config(config)
    reporter = Reporter()
    done = catch_up(settings, reporter)
    counts = {"read_reviews": done.verdicts, **done.notified}
    if json:
        print(dumps({"done": counts, "warnings": done.warnings}))
        return int(bool(done.warnings))
    sentences = []
    for name, count in counts.items():
        # None is a task that failed; a warning below says why
        number = "no" if count is None else count
        sentences.append(f"{number} {TASK_WORDS[name]}")
    print(", ".join(sentences))
    for warning in done.warnings:
        reporter.note(f"warning: {warning}")
    return int(bool(done.warnings))


def history(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    limit: Annotated[int, Parameter(help="How many lines.")] = 20,
    each: Annotated[
        bool,
        Parameter(
            name="--all",
            negative="",
            show_default=False,
            help="A line for every audit. Default: one for all without new rows that follow each "
            "other.",
        ),
    ] = False,
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print one JSON object an audit: each."),
    ] = False,
) -> None:
    """Print past audits, newest first.

    Example: `poisonwatch history my-audit/audit.yaml --limit 10`
    """
    if limit < 1:
        raise InputError(f"--limit is {limit}: ask for at least one line")
    from poisonwatch.concealment import conceal_logs
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.cli.history import (
        build_history_lines,
        print_history,
        tell_liveness,
        tell_muted,
    )
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.integrations.mlflow.audit_runs import list_tracked_runs
    from poisonwatch.ledger.mutes import list_active_mutes
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.liveness.liveness import expect, find_liveness

    settings = load_config(config)
    with conceal_logs(settings.find_secrets()), open_to_read(settings.state) as ledger:
        tracked = None
        # MLflow is a second source here: what the ledger knows is shown without it, too
        try:
            tracked = list_tracked_runs(settings, limit)
        except OperationError as error:
            Reporter().note(f"warning: {error}")
        at = datetime.now(UTC)
        with ledger.read() as connection:
            expected = expect(connection, settings.name, settings.schedule, at)
            mutes = list_active_mutes(connection, settings.name, at)
        tell_liveness(find_liveness(ledger, settings.name, expected, at), json)
        lines = build_history_lines(ledger, settings, tracked, limit, each=each or json)
        print_history(lines, json)
    if not json:
        tell_muted(mutes)
