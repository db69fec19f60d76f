"""`poisonwatch discover`: groups of rows that push the model the same way, without any sentinel;
and a sentinel made of one.

The docstring of a command is its help: what it does, and an example that runs.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from poisonwatch.errors import InputError

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig
    from poisonwatch.flows.discover import DiscoveryOutcome
    from poisonwatch.ledger.history import PastAudit
    from poisonwatch.ledger.ledger import Ledger


def discover(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    audit: Annotated[
        str | None,
        Parameter(help="The audit, by its id, whose rows are looked at. Default: the latest."),
    ] = None,
    say: Annotated[
        int | None,
        Parameter(
            help="About how many groups the steered model is asked, the first ones. Default: the "
            "first 3 that stand out."
        ),
    ] = None,
    group: Annotated[
        int | None,
        Parameter(help="Show this group alone: all its rows, and all that the model says."),
    ] = None,
    guard: Annotated[
        int | None,
        Parameter(help="Make sentinels of this group, which the next audit asks."),
    ] = None,
    panel: Annotated[
        str | None,
        Parameter(help="With --guard: the panel's name. Default: by the words that rows share."),
    ] = None,
    draft: Annotated[
        Path | None,
        Parameter(help="With --guard: only write the sentinels to this file, to be changed."),
    ] = None,
    use: Annotated[
        Path | None,
        Parameter(help="With --guard: take the sentinels of this file, a draft that was changed."),
    ] = None,
    author: Annotated[
        str | None, Parameter(help="With --guard: who does. Default: your user name.")
    ] = None,
    again: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Look anew, whatever was found and kept before."
        ),
    ] = False,
    json: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Print one JSON object; with --group, one a row, as `decide --rows` takes them.",
        ),
    ] = False,
) -> None:
    """Find groups of rows that push the model a way that trusted rows do not, whatever the
    sentinels ask; from what an audit kept of each row, without measuring it again.

    Of each group: its rows, the words they share, how unusual it is beside trusted rows, whether
    earlier audits had it, and what the model says when it is steered with it. It informs, and holds
    nothing back (exit code 0); `--guard` makes sentinels of a group, and the next audit flags what
    pushes them.

    Example: `poisonwatch discover my-audit/audit.yaml --guard 1`
    """
    _check_options(say, group, guard, panel, draft, use)
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.pruning.missing import describe_missing_records
    from poisonwatch.text.display import make_visible

    settings = load_config(config)
    with Ledger.existing(settings.state) as ledger:
        past = _choose_audit(ledger, settings, audit)
        from poisonwatch.flows.bars import Bars
        from poisonwatch.flows.discover import Inquiry, discover_inline, find_kept

        inquiry = Inquiry(say, group if guard is None else guard, again)
        missing = describe_missing_records(past, config)
        if missing is not None and find_kept(past, inquiry) is None:
            raise missing
        outcome = discover_inline(settings, past, ledger, inquiry, Bars(quiet=json))
    for warning in outcome.warnings:
        print(make_visible(f"poisonwatch: {warning}"), file=sys.stderr)
    if guard is not None:
        _guard(outcome, config, guard, panel, draft, use, author)
        return
    from poisonwatch.flows.cli.discover_page import print_discovery, print_group

    if group is not None:
        print_group(outcome, group, config, as_json=json)
        return
    print_discovery(outcome, config, as_json=json)


def _check_options(
    say: int | None,
    group: int | None,
    guard: int | None,
    panel: str | None,
    draft: Path | None,
    use: Path | None,
) -> None:
    """Raises InputError where options do not go together."""
    if say is not None and say < 0:
        raise InputError(f"--say is {say}: a number of groups from 0 is meant")
    if guard is None and (panel or draft or use):
        raise InputError(
            "--panel, --draft and --use say how a group is guarded: name it, --guard N"
        )
    if guard is not None and group is not None:
        raise InputError("--group shows a group and --guard guards one: give one of them")
    if draft is not None and use is not None:
        raise InputError("--draft writes a file and --use takes one: give one of them")
    if use is not None and panel is not None:
        raise InputError(
            "the file of --use says which panel its sentinels are of: leave out --panel"
        )


def _choose_audit(ledger: "Ledger", settings: "AuditConfig", audit: str | None) -> "PastAudit":
    """The audit of an id, or the latest of the name that had rows. Raises InputError where there is
    none.
    """
    from poisonwatch.ledger.history import (
        COMMITTED_STATES,
        HAD_ROWS,
        find_by_audit_id,
        list_past_audits,
    )
    from poisonwatch.ledger.tables import audits

    if audit is not None:
        past = find_by_audit_id(ledger, audit)
        if past is None or not past.has_results:
            raise InputError(
                f"the ledger knows no finished audit {audit}: `poisonwatch history` names them"
            )
        if past.nothing_new:
            raise InputError(f"no row was new to audit {audit}: there is nothing to look at")
        return past
    which = [HAD_ROWS, audits.c.state.in_(COMMITTED_STATES)]
    latest = list_past_audits(ledger, settings.name, limit=1, where=which)
    if not latest:
        raise InputError(f"no audit of {settings.name} had rows: run `poisonwatch audit` first")
    return latest[0]


def _guard(
    outcome: "DiscoveryOutcome",
    config: Path,
    number: int,
    panel: str | None,
    draft: Path | None,
    use: Path | None,
    author: str | None,
) -> None:
    """Write the sentinels of a group as a draft, or add them to the audit's."""
    import getpass

    from poisonwatch.config_file import load_config
    from poisonwatch.discovery.proposal import write_proposal
    from poisonwatch.flows.cli.discover_page import print_adoption, print_draft
    from poisonwatch.sentinels.adopting import adopt_sentinels, check_adoption
    from poisonwatch.sentinels.sentinel import load_sentinels, read_sentinel_text

    settings = load_config(config)
    if use is not None:
        if not use.exists():
            raise InputError(f"{use} does not exist: `--guard {number} --draft {use}` writes it")
        piece = read_sentinel_text(str(use))
    else:
        piece = write_proposal(
            outcome.report.get_group(number),
            outcome.examples,
            load_sentinels(settings.sentinels),
            audit_id=outcome.report.audit_id,
            by=getpass.getuser() if author is None else author,
            panel=panel,
        )
    sentinels = check_adoption(piece, settings)
    if draft is not None:
        _write_draft(draft, piece)
        print_draft(draft, piece, config, number)
        return
    print_adoption(adopt_sentinels(piece, config), sentinels, config)


def _write_draft(path: Path, piece: str) -> None:
    """Write sentinels to a file of their own. Raises InputError where it is there already, or
    cannot be written.
    """
    from poisonwatch.atomic import replace_file

    if path.exists():
        raise InputError(f"{path} is there already: name another file, or remove it")
    try:
        with replace_file(path) as part:
            part.write_text(piece, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
