"""`poisonwatch decide`: what people say of rows, one by one or many at once.

The docstring of a command is its help: what it does, and an example that runs.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from poisonwatch.errors import InputError
from poisonwatch.text.words import plural

if TYPE_CHECKING:
    from poisonwatch.ledger.decisions import Decision
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.proposals import Proposal

VERDICTS = ("poison", "benign", "unsure", "flip", "edit")
ID_DIGITS = 16  # of an example id that is shown
DECISIONS_SHOWN = 20


def decide(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *words: Annotated[
        str,
        Parameter(
            help="Rows, and what they are, last: poison, benign, or unsure, which takes back what "
            "was decided before; or what is done to them: flip (the answers of a preference pair "
            "change places), edit (another answer). A row is 8 or more digits of its id, or "
            "FILE:LINE, which counts from 1: both as an audit prints them.",
        ),
    ],
    group: Annotated[
        str | None,
        Parameter(help="All rows of this group, by its number in the audit."),
    ] = None,
    audit: Annotated[
        str | None, Parameter(help="The audit whose group it is. Default: the latest with rows.")
    ] = None,
    rows: Annotated[
        Path | None,
        Parameter(
            help="A file that names rows: one a line, or lines of JSON with their example_id, as "
            "those of flags.jsonl."
        ),
    ] = None,
    source: Annotated[
        str | None, Parameter(help="All flagged rows of this file that wait for a decision.")
    ] = None,
    panel: Annotated[
        str | None, Parameter(help="All flagged rows of this panel that wait for a decision.")
    ] = None,
    unflagged: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Decide on rows that no audit flagged, too."
        ),
    ] = False,
    answer: Annotated[
        str | None, Parameter(help="With edit: what the assistant should have said last.")
    ] = None,
    answer_file: Annotated[
        Path | None, Parameter(help="The same, as a file of UTF-8; one line end at its end goes.")
    ] = None,
    undo: Annotated[
        str | None,
        Parameter(help="Take these decisions back, by new ones: a number, or FIRST-LAST."),
    ] = None,
    withdraw: Annotated[
        int | None,
        Parameter(
            help="Take back what you proposed, by its number, before a second person agrees."
        ),
    ] = None,
    note: Annotated[str, Parameter(help="Why.")] = "",
    author: Annotated[str | None, Parameter(help="Who decides. Default: your user name.")] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON object a decision.")
    ] = False,
) -> None:
    """Say what flagged or rejected rows are: poison, benign or unsure; on all that are named, or on
    none. What was decided of them before gives way, and is counted in the output.

    Where the audit file asks for two people (`review: {two_people: high}`), what the first says is
    a proposal, and counts once another one says the same. What is decided otherwise is counted
    there, too.

    Or repair them, with `flip` or `edit --answer TEXT`: every release has the changed row, the
    source stays as it is.

    Example: `poisonwatch decide my-audit/audit.yaml 3f2a91c07d benign
    --note 'a known joke of ours'`
    """
    import getpass

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.decisions import find_replaced
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.proposals import find_decided_otherwise
    from poisonwatch.ledger.two_people import (
        Outcome,
        revert_submitted,
        submit_verdict,
        withdraw_proposal,
    )

    *named, verdict = words or ("",)
    takes_back = undo is not None or withdraw is not None
    if not takes_back and verdict not in VERDICTS:
        raise InputError(f"the last word says what the rows are: {', '.join(VERDICTS)}")
    if takes_back and words:
        raise InputError("what is taken back is named by its number: name no rows beside it")
    if answer_file is not None:
        answer = _read_answer(answer_file, answer)
    # None alone stands for whoever is logged in: an empty name is refused, not replaced
    if author is None:
        author = getpass.getuser()
    settings = load_config(config)
    replaced: dict[int, str] = {}
    to_replace: dict[str, str] = {}
    with Ledger.existing(settings.state, signer=settings.signing.load_signer()) as ledger:
        two_people = settings.review.two_people
        if withdraw is not None:
            count = withdraw_proposal(ledger, withdraw, author)
            print(f"proposal {withdraw} is withdrawn from {plural(count, 'row')}")
            return
        if undo is not None:
            made = revert_submitted(ledger, _parse_numbers(undo), author, two_people)
            outcome = Outcome(made, None)
        else:
            if rows is not None:
                named += _read_names(rows)
            if group is not None:
                named += _list_group(ledger, settings.name, audit, group)
            if source is not None or panel is not None:
                named += _list_waiting(ledger, settings.name, source, panel)
            if not named:
                raise InputError(
                    "no rows: name them, or a group, a file of rows, a source, a panel"
                )
            distinct = list(dict.fromkeys(named))
            outcome = submit_verdict(
                ledger,
                distinct,
                verdict,
                note=note,
                author=author,
                two_people=two_people,
                unflagged=unflagged,
                answer=answer,
            )
            outcome.require_news()
            replaced = find_replaced(ledger, outcome.decisions)
            if outcome.proposal is not None:
                to_replace = find_decided_otherwise(ledger, outcome.proposal)
    if json:
        for decision in outcome.decisions:
            before = replaced.get(decision.number)
            print(dumps(decision.record() | ({} if before is None else {"replaces": before})))
        if outcome.proposal is not None:
            told = {"proposal": outcome.proposal.record()}
            print(dumps(told | ({"replaces": to_replace} if to_replace else {})))
        return
    _print_decisions(outcome.decisions, replaced.values(), config)
    if outcome.proposal is not None:
        _print_proposal(outcome.proposal, to_replace.values(), config)


def _read_answer(file: Path, answer: str | None) -> str:
    """The answer in a file. Raises InputError where it cannot be read, or is given twice."""
    if answer is not None:
        raise InputError("--answer and --answer-file are one too many: give one of them")
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"--answer-file: {file} cannot be read: {error}") from None


def _read_names(file: Path) -> list[str]:
    """The rows that a file names. Raises InputError where it cannot be read, or a line names
    none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"--rows: {file} cannot be read: {error}") from None
    names = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith("{"):
            try:
                text = str(loads(text)["example_id"])
            except (ValueError, KeyError, RecursionError):
                raise InputError(f"--rows: line {number} of {file} has no example_id") from None
        if text:
            names.append(text)
    return names


def _list_group(ledger: "Ledger", name: str, audit: str | None, group: str) -> list[str]:
    """The ids of a group's rows. Raises InputError where there is no such group."""
    from poisonwatch.ledger.history import COMMITTED_STATES, HAD_ROWS, list_past_audits
    from poisonwatch.ledger.queue import list_group_rows
    from poisonwatch.ledger.tables import audits

    if audit is None:
        which = [HAD_ROWS, audits.c.state.in_(COMMITTED_STATES)]
        latest = list_past_audits(ledger, name, limit=1, where=which)
        if not latest:
            raise InputError(f"no audit of {name} had rows: there is no group {group}")
        audit = latest[0].audit_id
    try:
        return [row.example_id for row in list_group_rows(ledger, audit, group)]
    except InputError as error:
        raise InputError(f"{error}: audit {audit}, group {group}") from None


def _list_waiting(ledger: "Ledger", name: str, source: str | None, panel: str | None) -> list[str]:
    """The ids of flagged rows that wait for a decision. Raises InputError where there are none."""
    from poisonwatch.ledger.overview import AuditFilter
    from poisonwatch.ledger.queue import export_flagged_rows

    wanted = AuditFilter(name=name, source=source or "")
    waiting = export_flagged_rows(ledger, wanted, "open")
    ids = [row["example_id"] for row in waiting if panel in (None, row["panel"])]
    if not ids:
        raise InputError("no flagged row of these waits for a decision")
    return ids


def _parse_numbers(text: str) -> range:
    first, _, last = text.partition("-")
    numbers = [part for part in (first, last or first) if part.isascii() and part.isdigit()]
    if len(numbers) < 2 or int(numbers[0]) > int(numbers[1]):
        raise InputError(f"--undo {text}: give a decision's number, or FIRST-LAST")
    return range(int(numbers[0]), int(numbers[1]) + 1)


def _describe(decision: "Decision") -> str:
    row = decision.example_id[:ID_DIGITS]
    if decision.repaired_id is None:
        return f"{row} is {decision.verdict}"
    becomes = decision.repaired_id[:ID_DIGITS]
    return f"{row} becomes {becomes} by {decision.verdict}"


def _print_decisions(made: "Sequence[Decision]", replaced: Collection[str], config: Path) -> None:
    for decision in made[:DECISIONS_SHOWN]:
        print(f"decision {decision.number}: {_describe(decision)}")
    if replaced:
        print(f"decided otherwise before: {_count_verdicts(replaced)}")
    if len(made) > 1:
        numbers = f"{made[0].number}-{made[-1].number}"
        print(f"{len(made)} decisions; taken back by: poisonwatch decide {config} --undo {numbers}")


def _print_proposal(made: "Proposal", to_replace: Collection[str], config: Path) -> None:
    print(
        f"proposal {made.number}: {plural(len(made.rows), 'row')} {made.verdict}, once a second "
        "person says the same"
    )
    if to_replace:
        print(f"decided otherwise, and in force until then: {_count_verdicts(to_replace)}")
    print(f"taken back by: poisonwatch decide {config} --withdraw {made.number}")


def _count_verdicts(verdicts: Collection[str]) -> str:
    counts = Counter(verdicts)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{plural(len(verdicts), 'row')} ({said})"
