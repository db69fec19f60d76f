"""What the commands do that hold messages back: mute, unmute. Heavy imports wait until a command
really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from poisonwatch.errors import InputError

if TYPE_CHECKING:
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.mutes import Mute

GROUP = (
    "AUDIT/GROUP as in the dashboard's addresses, the key of an alert, 8 or more digits of the id "
    "of a row in it, or panel:NAME."
)


def mute(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    group: Annotated[str | None, Parameter(help=GROUP)] = None,
    /,
    *,
    until: Annotated[
        str | None,
        Parameter(help="A day, as in 2026-12-31, or a time from now, as in 14d; a year at most."),
    ] = None,
    why: Annotated[str, Parameter(help="Why, for those who come later.")] = "",
    owner: Annotated[
        str | None, Parameter(help="Who looks after it meanwhile. Default: the author.")
    ] = None,
    author: Annotated[str | None, Parameter(help="Who mutes. Default: your user name.")] = None,
    list: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print what is muted, and was.")
    ] = False,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print a JSON object a mute.")
    ] = False,
) -> None:
    """Send no messages about a group of flagged rows, or about a panel, for a while. Its rows stay
    flagged, and in quarantine; graver ones are told of all the same.

    Example: `poisonwatch mute my-audit/audit.yaml panel:identity --until 14d
    --why 'our own new persona; ann looks at it'`
    """
    import getpass
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.mutes import parse_until, record_mute, tell_mute

    settings = load_config(config)
    if list and (group or until or why or owner):
        raise InputError("--list takes nothing else: leave the group and its end out")
    if not list and (group is None or until is None):
        raise InputError("name what is muted, and --until when; --list prints what is")
    with Ledger.existing(settings.state, signer=settings.signing.load_signer()) as ledger:
        if group is None or until is None:
            _print_mutes(ledger, settings.name, as_json=json)
            return
        made = record_mute(
            ledger,
            settings.name,
            group,
            parse_until(until),
            why,
            author=getpass.getuser() if author is None else author,
            owner=owner,
        )
    if json:
        print(dumps({**made.describe(), "replaces": made.replaces}))
        return
    print(tell_mute(made.describe()))
    for number in made.replaces:
        print(f"it replaces mute {number}, which ended")


def unmute(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    group: Annotated[str, Parameter(help="What was muted, as then, or the mute's number.")],
    /,
    *,
    why: Annotated[str, Parameter(help="Why.")] = "",
    author: Annotated[str | None, Parameter(help="Who ends it. Default: your user name.")] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print a JSON object a mute.")
    ] = False,
) -> None:
    """End a mute before its time: the next audit tells of rows that were flagged meanwhile, or
    sync does.

    Example: `poisonwatch unmute my-audit/audit.yaml panel:identity`
    """
    import getpass
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.mutes import end_mutes
    from poisonwatch.text.display import excerpt

    settings = load_config(config)
    with Ledger.existing(settings.state, signer=settings.signing.load_signer()) as ledger:
        who = getpass.getuser() if author is None else author
        for ended in end_mutes(ledger, settings.name, group, why, author=who):
            if json:
                print(dumps({**ended.describe(), "unmuted_by": who}))
                continue
            print(f"{excerpt(ended.on, 80)} is muted no more (mute {ended.number})")


def _print_mutes(ledger: "Ledger", name: str, as_json: bool) -> None:
    """The mutes that hold, then those that ended."""
    from datetime import UTC, datetime
    from json import dumps

    from poisonwatch.ledger.mutes import list_mutes, tell_mute

    with ledger.read() as connection:
        mutes = list_mutes(connection, name)
    at = datetime.now(UTC)
    active = [mute for mute in mutes if mute.is_active(at)]
    ended = [mute for mute in mutes if mute not in active]
    if as_json:
        for each in (*active, *ended):
            state = {"active": each in active, "muted_at": each.muted_at}
            by = {"ended_at": each.ended_at, "unmuted_by": each.unmuted_by}
            print(dumps({**each.describe(), **state, **by}))
        return
    for each in active:
        print(tell_mute(each.describe()))
    if not active:
        print("nothing is muted")
    for each in ended:
        print(_tell_ended(each))


def _tell_ended(mute: "Mute") -> str:
    from poisonwatch.text.display import excerpt

    line = f"ended {mute.ended_at[:16].replace('T', ' ')} UTC: {excerpt(mute.on, 80)}"
    if mute.unmuted_by is not None:
        line += f", by {excerpt(mute.unmuted_by, 60)}"
    return f"{line}, because {excerpt(mute.why, 200)} (mute {mute.number})"
