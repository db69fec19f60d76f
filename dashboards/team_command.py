"""What the commands of people who review together do: assign, comment. Heavy imports wait until a
command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from poisonwatch.errors import InputError
from poisonwatch.text.words import plural

GROUP = (
    "The number of a group of the latest audit; AUDIT/GROUP as in the dashboard's addresses; the "
    "key of an alert; or 8 or more digits of the id of a row in it."
)


def assign(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    group: Annotated[str, Parameter(help=GROUP)],
    assignee: Annotated[
        str | None, Parameter(help="Who is to look at it. Where there are users, one of them.")
    ] = None,
    /,
    *,
    nobody: Annotated[
        bool, Parameter(negative="", show_default=False, help="Give it back, to whoever comes.")
    ] = False,
    author: Annotated[str | None, Parameter(help="Who assigns. Default: your user name.")] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Assign the rows of a group of flagged rows to somebody; reminders say who has what.

    Example: `poisonwatch assign my-audit/audit.yaml 1 ann`
    """
    import getpass
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.dashboards.assignees import check_assignee
    from poisonwatch.ledger.assignments import record_assignment
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.muted_groups import locate_group
    from poisonwatch.text.display import excerpt

    if nobody == bool(assignee and assignee.strip()):
        raise InputError("say who is to look at the group, or --nobody")
    settings = load_config(config)
    who = getpass.getuser() if author is None else author
    name = check_assignee(settings, config, (assignee or "").strip(), who)
    with Ledger.existing(settings.state, signer=settings.signing.load_signer()) as ledger:
        audit_id, key = locate_group(ledger, settings.name, group)
        count = record_assignment(ledger, audit_id, key, name, author=who)
    if json:
        print(dumps({"group": f"{audit_id}/{key}", "rows": count, "assignee": name or None}))
        return
    to = f"assigned to {excerpt(name, 60)}" if name else "nobody's"
    print(f"{audit_id}/{key}: {plural(count, 'row')} {to}")


def comment(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    group: Annotated[str, Parameter(help=GROUP)],
    text: Annotated[str, Parameter(help="What is said. It stays: another one corrects it.")],
    /,
    *,
    author: Annotated[str | None, Parameter(help="Who says it. Default: your user name.")] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Say something of a group of flagged rows, for those who look at it later.

    Example: `poisonwatch comment my-audit/audit.yaml 1 'these came with the vendor dump of May'`
    """
    import getpass
    from dataclasses import asdict
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.comments import record_comment
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.muted_groups import locate_group

    settings = load_config(config)
    who = getpass.getuser() if author is None else author
    with Ledger.existing(settings.state, signer=settings.signing.load_signer()) as ledger:
        audit_id, key = locate_group(ledger, settings.name, group)
        made = record_comment(ledger, audit_id, key, text, author=who)
    if json:
        print(dumps({"group": f"{audit_id}/{key}", **asdict(made)}))
        return
    print(f"{audit_id}/{key}: comment {made.number} on {plural(len(made.rows), 'row')}")
