"""What `verify` does: everything in the ledger, recomputed from its records. Heavy imports wait
until the command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig
    from poisonwatch.ledger.differences import Difference
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.verification.verify import Verification

DIFFERENCES_SHOWN = 50
EXIT_DIFFERENT = 1


def verify(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    head: Annotated[
        list[str] | None,
        Parameter(
            help="NUMBER:HASH of the chain, as manifests, alerts and MLflow runs have it: the "
            "ledger must still hold it."
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        Parameter(
            help="A public key (.pub) that every record must be signed by, or by another one that "
            "is given. Default: signing.public of the audit file, if it names any."
        ),
    ] = None,
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print the answer as one JSON object."),
    ] = False,
) -> int:
    """Recompute the ledger from its records, and name each difference: exit code 0 only if there
    is none, 1 if there is.

    Checked are the chain of records and its signatures, decisions, audits with all that they found,
    what rows are, their bytes and where they stand, rows under review, the run directories that are
    here, and the heads that MLflow's runs keep. Nothing is repaired.

    Example: `poisonwatch verify my-audit/audit.yaml`
    """
    from dataclasses import replace
    from json import dumps

    from poisonwatch.attestation.keys import read_public_keys
    from poisonwatch.config_file import load_config
    from poisonwatch.flows.bars import Bars
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.ledger.records import ChainHead
    from poisonwatch.verification.verify import verify_ledger

    settings = load_config(config)
    heads = [ChainHead.parse(text) for text in head or ()]
    keys = read_public_keys(key) if key else settings.signing.load_public_keys()
    progress = Bars(quiet=json).progress
    with open_to_read(settings.state) as ledger:
        found = verify_ledger(ledger, settings.name, keys or None, heads, progress)
        witnesses, unheld = _ask_mlflow(ledger, settings)
    found = replace(found, witnesses=witnesses, differences=[*found.differences, *unheld])
    if json:
        print(dumps(found.record()))
    else:
        _print_verification(found)
    if found.is_whole:
        return 0
    return EXIT_DIFFERENT


def _ask_mlflow(ledger: "Ledger", settings: "AuditConfig") -> tuple[int | None, list["Difference"]]:
    """How many of MLflow's runs keep a head of the chain, None where none can be asked, and the
    heads that the ledger does not hold.
    """
    from poisonwatch.errors import OperationError
    from poisonwatch.integrations.mlflow.heads import check_heads

    try:
        return check_heads(ledger, settings)
    # What cannot be asked proves nothing, and is told.
    except OperationError:
        return None, []


def _print_verification(found: "Verification") -> None:
    """What was checked, and what differs, a line each."""
    from poisonwatch.text.words import plural

    for difference in found.differences[:DIFFERENCES_SHOWN]:
        print(difference.words)
    hidden = len(found.differences) - DIFFERENCES_SHOWN
    if hidden > 0:
        print(f"and {hidden} more (--json names all)")
    checked = (
        plural(found.records, "record"),
        plural(found.audits, "audit"),
        plural(found.decisions, "decision"),
        plural(found.rows, "row"),
        plural(found.run_dirs, "run directory", "run directories"),
    )
    print(f"checked: {', '.join(checked)}")
    print(f"head of the chain: {found.head}")
    if found.witnesses is None:
        print("MLflow cannot be asked for the heads that its runs keep")
    else:
        print(f"{plural(found.witnesses, 'MLflow run')} with a head of the chain")
    print(_describe_signatures(found))
    if found.older_ids:
        print(
            f"{plural(found.older_ids, 'row')} of an earlier version: their ids were computed "
            "otherwise, and are taken as they are"
        )
    if found.unsealed:
        runs = plural(found.unsealed, "run directory", "run directories")
        print(f"{runs} of before there were checksums: the files are taken as they are")
    if found.pruned:
        print(f"{plural(found.pruned, 'run directory', 'run directories')} pruned, as recorded")
    if found.away:
        print(f"{plural(found.away, 'run directory', 'run directories')} not on this machine")
    if found.is_whole:
        print("all is as it was recorded")
    else:
        print(f"{plural(len(found.differences), 'difference')}: restore the ledger from a backup")


def _describe_signatures(found: "Verification") -> str:
    if found.asked_for_keys:
        text = f"signatures: {found.signed} of {found.records} records signed by trusted keys"
        if found.history:
            text += f", {found.history} of before the chain unsigned"
        return text
    if found.signatures:
        return f"signatures: {found.signatures}, not checked (--key says whose count)"
    return "signatures: nothing is signed"
