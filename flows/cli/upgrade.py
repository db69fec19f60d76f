"""What `poisonwatch upgrade` does. Heavy imports wait until the command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from poisonwatch.flows.upgrade import Upgrade

EXIT_TO_DO = 1


def upgrade(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    check: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Say what would change, and change it not."
        ),
    ] = False,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON object.")
    ] = False,
) -> int:
    """Bring the ledger of an earlier version, and MLflow's store where it is a file, up to this
    one: each is copied first, beside itself.

    Any command migrates a ledger that it opens; this one keeps a copy, and looks at what else an
    upgrade needs. An earlier version cannot open the ledger afterwards. With --check nothing is
    changed.

    Exit code 0: all is of this version, or is now; 1: with --check, something is to be done, and
    without, a person has to do it; 2: the ledger is of a newer version.

    Example: `poisonwatch upgrade my-audit/audit.yaml --check`
    """
    from json import dumps

    from poisonwatch.concealment import conceal_all
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.upgrade import carry_out, plan_upgrade

    settings = load_config(config)
    copies: list[Path] = []
    with conceal_all(settings.find_secrets()):
        plan = plan_upgrade(settings, config)
        if not check and plan.changes:
            copies = carry_out(settings, plan)
    is_well = plan.is_done if check else not plan.needs
    if json:
        print(dumps({**plan.to_record(), "copies": [str(copy) for copy in copies]}))
    else:
        _print_upgrade(plan, copies, check)
    return 0 if is_well else EXIT_TO_DO


def _print_upgrade(plan: "Upgrade", copies: list[Path], check: bool) -> None:
    import poisonwatch
    from poisonwatch.text.display import make_visible

    ledger = plan.ledger
    writer = f"Poisonwatch {ledger.written_by}" if ledger.written_by else "one that did not say"
    lines = [
        f"ledger of revision {ledger.revision}, its last audit by {writer}; "
        f"this is {poisonwatch.__version__}, with revision {ledger.newest}"
    ]
    verb = "would change" if check else "changed"
    lines += [f"{verb}  {change}" for change in plan.changes]
    lines += [f"to do  {need}" for need in plan.needs]
    lines += [f"note  {note}" for note in plan.notes]
    lines += [f"copy of before  {copy}" for copy in copies]
    if plan.is_done:
        lines.append("nothing to do")
    print("\n".join(make_visible(line) for line in lines))
