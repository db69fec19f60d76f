"""What the command does that removes what past audits left. Heavy imports wait until it runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from poisonwatch.tasks.pruning import PruneOutcome

SHOWN = 10  # of what goes, by name


def prune(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, help="Remove it; else it is only named.")
    ] = False,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON object.")
    ] = False,
) -> int:
    """Remove run directories, operators and MLflow runs that past audits and drills left.

    Without --yes nothing is removed: it is said what would go by `keep` in the audit file, and why
    the rest stays. Decisions, flags, results, releases and the chain of records always stay; what
    is removed is on record there.

    Example: `poisonwatch prune my-audit/audit.yaml --yes`
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.prune import prune as prune_audits
    from poisonwatch.flows.reporter import Reporter

    settings = load_config(config)
    reporter = Reporter(quiet=json)
    outcome = prune_audits(settings, reporter, remove=yes)
    if json:
        print(json_module.dumps(_describe(outcome, removed=yes)))
    else:
        _print_outcome(outcome, removed=yes)
    for failure in outcome.failures:
        Reporter().note(f"warning: {failure}")
    return int(bool(outcome.failures))


def _describe(outcome: "PruneOutcome", removed: bool) -> dict[str, Any]:
    """As JSON; sizes are in bytes."""
    removals = []
    for removal in outcome.plan.removals:
        named = {"audit_id": removal.audit_id, "part": removal.part, "path": str(removal.path)}
        removals.append({**named, "bytes": removal.bytes})
    drills = []
    for gone in outcome.drills.removals:
        drills.append({"drill_id": gone.drill_id, "path": str(gone.path), "bytes": gone.bytes})
    return {
        "removed": removed,
        "removals": removals,
        "leftovers": [str(path) for path in _list_leftovers(outcome)],
        "drills": {"removals": drills, "kept": dict(outcome.drills.kept)},
        "mlflow_runs": {"runs": outcome.runs.runs, "bytes": outcome.runs.bytes},
        "kept": dict(outcome.plan.kept),
        "failures": outcome.failures,
    }


def _list_leftovers(outcome: "PruneOutcome") -> list[Path]:
    return [*outcome.plan.leftovers, *outcome.drills.leftovers]


def _print_outcome(outcome: "PruneOutcome", removed: bool) -> None:
    from poisonwatch.ledger.audit_records import RUN_DIRECTORY
    from poisonwatch.ledger.prunings import OPERATORS
    from poisonwatch.text.display import make_visible
    from poisonwatch.text.words import plural

    plan, drills = outcome.plan, outcome.drills
    going = [(removal.bytes, removal.path) for removal in plan.removals]
    going += [(drill.bytes, drill.path) for drill in drills.removals]
    for size, path in going[:SHOWN]:
        print(f"  {_format_size(size):>9}  {make_visible(str(path))}")
    if len(going) > SHOWN:
        print(f"  and {len(going) - SHOWN} more (--json names all)")
    run_dirs, run_bytes = plan.count(RUN_DIRECTORY)
    fitted, fitted_bytes = plan.count(OPERATORS)
    runs = outcome.runs
    goes = (
        f"{plural(run_dirs, 'run directory', 'run directories')} ({_format_size(run_bytes)})",
        f"operators of {plural(fitted, 'more audit')} ({_format_size(fitted_bytes)})",
        f"{plural(len(drills.removals), 'drill')} "
        f"({_format_size(sum(drill.bytes for drill in drills.removals))})",
        f"{plural(runs.runs, 'MLflow run')} ({_format_size(runs.bytes)})",
    )
    print(f"{'removed' if removed else 'would go'}: {', '.join(goes)}")
    if leftovers := _list_leftovers(outcome):
        print(f"and {len(leftovers)} that an earlier prune left half-removed")
    print(f"stay: {_tell_kept(plan.kept, 'run directory', 'run directories')}")
    if drills.kept:
        print(f"stay: {_tell_kept(drills.kept, 'drill', 'drills')}")
    if not removed:
        print("nothing was removed: --yes does it")


def _tell_kept(kept: Mapping[str, int], noun: str, nouns: str) -> str:
    """How many stay, and why."""
    from poisonwatch.text.words import plural

    total = plural(sum(kept.values()), noun, nouns)
    why = ", ".join(f"{count} {reason}" for reason, count in kept.items())
    return f"{total}: {why}" if why else total


def _format_size(size: int) -> str:
    """Bytes in words, as 12.3 MB."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
