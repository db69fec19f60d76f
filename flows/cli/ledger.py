"""What the commands do that ask or change the ledger: release, decisions, gate. Heavy
imports wait until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from poisonwatch.errors import PoisonwatchError

if TYPE_CHECKING:
    from poisonwatch.config import AuditConfig
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.release.answer import GateAnswer
    from poisonwatch.release.selection import ReleaseCounts

EXIT_NOT_CLEARED = 3
PLACES_SHOWN = 20
KEY_DIGITS = 16  # of a key's id


def release(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    out: Annotated[
        Path,
        Parameter(
            help="A new folder for the clean split and its manifest; "
            "what is held back goes to OUT.held-back, beside it."
        ),
    ],
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Write the rows that audits cleared, with a manifest: as they stand in the source now, in its
    order, copies as often as there.

    It is signed where the audit file names a key (`signing`). With `validation.duplicates: drop`
    there, copies are written once.

    Example: `poisonwatch release my-audit/audit.yaml --out cleared`
    """
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.read_only import require_one_name
    from poisonwatch.ledger.two_people import require_two_people
    from poisonwatch.provenance.openlineage_owed import list_lineage_readers
    from poisonwatch.release.destination import refuse_folder_inside
    from poisonwatch.release.release import get_held_back_path, write_release
    from poisonwatch.release.selection import count_undecided

    settings = load_config(config)
    refuse_folder_inside(settings.source, out)
    refuse_folder_inside(settings.source, get_held_back_path(out))
    duplicates = settings.validation.duplicates
    signer = settings.signing.load_signer()
    # Before anything else is said of what may be half of the ledger.
    require_one_name(settings.state)
    with Ledger.existing(settings.state, signer=signer) as ledger:
        require_two_people(ledger, settings.name, settings.review.two_people)
        readers = list_lineage_readers(settings)
        counts = write_release(ledger, settings.name, out, duplicates, readers)
        with ledger.read() as connection:
            undecided = count_undecided(connection, settings.name)
        if readers:
            _tell_lineage(ledger, settings)
    manifest, held_back = out / "manifest.json", get_held_back_path(out)
    if json:
        key = None if signer is None else signer.key_id
        places = {"manifest": str(manifest), "held_back": str(held_back)}
        told = {"counts": counts.record(), "undecided": undecided, **places, "key": key}
        print(dumps(told))
        return
    _print_counts(counts, undecided)
    if undecided:
        print(f"             poisonwatch dashboard {config}, or poisonwatch decide {config} ...")
    signed = "" if signer is None else f", signed by key {signer.key_id[:KEY_DIGITS]}"
    print(f"manifest: {manifest}{signed}")
    print(f"held back: {held_back}")


def _tell_lineage(ledger: "Ledger", settings: "AuditConfig") -> None:
    """Tell the OpenLineage server of the release; where that fails, it is owed."""
    from poisonwatch.flows.reporter import Reporter
    from poisonwatch.provenance.openlineage_owed import tell_pending

    try:
        tell_pending(ledger, settings)
    except PoisonwatchError as error:
        said = settings.find_secrets().conceal_error(error)
        Reporter().note(f"warning: {said}; the next audit, or `poisonwatch sync`, tries again")


def _print_counts(counts: "ReleaseCounts", undecided: int) -> None:
    """What a release came to, in counts of places that add up; `undecided` ones are quarantined."""
    line = (
        f"{counts.total} audited rows: {counts.released} released, "
        f"{counts.quarantined} quarantined, {counts.rejected} rejected"
    )
    if counts.dropped:
        line += f", {counts.dropped} left out as copies"
    print(line)
    if counts.repaired:
        verb = "is" if counts.repaired == 1 else "are"
        print(f"{counts.repaired} of those released {verb} flipped or edited, as people decided")
    if undecided:
        poison = counts.quarantined - undecided
        print(f"quarantined: {undecided} wait for a decision, {poison} decided to be poison")
    if counts.copies:
        print(
            f"{counts.copies} of them are copies of earlier rows; "
            f"{counts.contents} differ in what is trained on"
        )
    if counts.pending:
        print(f"{counts.pending} rows were pulled and not audited yet: they are not among these")


def decisions(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print a JSON object a line.")
    ] = False,
) -> None:
    """Print all decisions, checking that none was changed or removed.

    Example: `poisonwatch decisions my-audit/audit.yaml`
    """
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.decisions import read_decisions, verify_chain
    from poisonwatch.ledger.group_teams import list_all_agreed
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.text.display import excerpt
    from poisonwatch.text.words import plural

    with open_to_read(load_config(config).state) as ledger:
        # checked before the first is printed: a broken chain shows nothing that could be believed
        count, last = verify_chain(ledger)
        agreed = list_all_agreed(ledger)
        for made in read_decisions(ledger):
            first = agreed.get(made.number)
            if json:
                print(dumps(made.record() | ({} if first is None else {"agrees_with": first})))
                continue
            who = f"{made.decided_at}  {excerpt(made.author, 30)}"
            if first is not None:
                who += f", as {excerpt(first, 30)}"
            what = f"{made.example_id[:16]}  {made.verdict:<7}  {excerpt(made.note, 200)}"
            print(f"{made.number:>5}  {who}  {what}")
            if made.repaired_id is not None:
                answer = "" if made.answer is None else f": {excerpt(made.answer, 200)}"
                print(f"       becomes {made.repaired_id[:16]}{answer}")
    if not json:
        print(f"{plural(count, 'decision')}, unbroken up to {last[:16]}")


def gate(
    paths: Annotated[
        list[str],
        Parameter(
            help="A release's manifest.json, or the rows themselves: files, folders, globs, URLs."
        ),
    ],
    /,
    *,
    audit: Annotated[
        Path | None,
        Parameter(
            help="The audit file whose ledger is asked. "
            "Without it, a manifest is compared with its files alone."
        ),
    ] = None,
    model_version: Annotated[
        str | None,
        Parameter(
            help="SHA-256 of the model that must have been guarded, or its first 8 or more digits. "
            "Default: the audit file's."
        ),
    ] = None,
    sentinels_version: Annotated[str | None, Parameter(help="The same of the sentinels.")] = None,
    reading_version: Annotated[
        str | None,
        Parameter(
            help="The same of the reading: tokenizer, chat template and their settings "
            "(model.reading in summary.json). Default: the audit file's, or any where "
            "--model-version is given."
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        Parameter(
            negative="",
            help="A public key whose signatures count, and no others; may be given several times. "
            "Default: those of the audit file (signing.public).",
        ),
    ] = None,
    head: Annotated[
        str | None,
        Parameter(
            help="A head of the ledger's chain that was known once, as NUMBER:HASH: the ledger "
            "must still go through it."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        Parameter(
            help="The least false-discovery rate: audits with a lower one flag less, and do not "
            "count. Default: exactly the audit file's settings."
        ),
    ] = None,
    screens: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            consume_multiple=True,
            help="Screens that audits must have had, by their names in the audit file. "
            "Default: exactly the audit file's settings.",
        ),
    ] = None,
    training_run: Annotated[
        str | None,
        Parameter(
            help="Put on record that this training run named the manifest, and the answer: "
            "`poisonwatch lineage` shows it."
        ),
    ] = None,
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print the answer as one JSON object."),
    ] = False,
) -> int:
    """Say whether exactly these rows are cleared for training: exit code 0 only if all are, 3 if
    not.

    Compared with the ledger are what a row trains, its bytes (every field, as it stands in the
    source now), and how often they come; below a folder, every file. Of a manifest, all files
    beside it. With a key, what clears a row must be signed: the records of audits and decisions, or
    without a ledger the manifest.

    Example: `poisonwatch gate cleared/manifest.json --audit my-audit/audit.yaml`
    """
    from json import dumps

    from poisonwatch.release.gate import check_cleared

    answer = check_cleared(
        paths,
        audit,
        model_version,
        sentinels_version=sentinels_version,
        reading_version=reading_version,
        keys=key,
        head=head,
        rate=rate,
        screens=screens,
        training_run=training_run,
    )
    if json:
        print(dumps(answer.record()))
    else:
        _print_answer(answer)
    if answer.cleared:
        return 0
    return EXIT_NOT_CLEARED


def _print_answer(answer: "GateAnswer") -> None:
    """The gate's answer for people: reasons with their counts, then the first rows that failed."""
    from poisonwatch.text.words import plural

    print(answer.headline)
    print(answer.signatures)
    for reason, count in answer.reasons.items():
        print(f"{count:>8}  {reason}")
    for place in answer.missing[:PLACES_SHOWN]:
        # a row that the ledger does not know has no id
        cells = (place.account, place.example_id and place.example_id[:16], place.reason)
        print("  ".join(filter(None, cells)))
    if len(answer.missing) > PLACES_SHOWN:
        print(f"and {len(answer.missing) - PLACES_SHOWN} more (--json names all)")
    if answer.passed_over:
        verb = "lies" if answer.passed_over == 1 else "lie"
        print(f"{plural(answer.passed_over, 'other file')} {verb} there, without rows")
    if "changed" in answer.reasons and answer.compared:
        print(
            "changed: not the bytes that the last pull found in the source; if the source was "
            "edited since, `poisonwatch audit` takes it in"
        )
    if "repaired" in answer.reasons:
        print(
            "repaired: a person flipped or edited the row; what `poisonwatch release` writes in "
            "its place is cleared, and this one is not"
        )
    if "other settings" in answer.reasons:
        print(
            "other settings: audited with this model and these sentinels, but judged by other "
            "settings than are asked for now; `poisonwatch audit` audits the latest rows again, "
            "`poisonwatch audit --again` all of them (or ask for a least --rate and --screens)"
        )
    if "another tokenizer or template" in answer.reasons:
        print(
            "another tokenizer or template: audited with this model and these sentinels, but the "
            "model was given other tokens for the row than it is now; `poisonwatch audit` audits "
            "the latest rows again, `poisonwatch audit --again` all of them"
        )
    if "unsigned" in answer.reasons:
        print(
            "unsigned: no key that counts signed what clears it; `poisonwatch keys show` tells "
            "what is signed, `poisonwatch keys sign` signs what is not"
        )
    if {"quarantine.jsonl", "rejected.jsonl"} & {place.source for place in answer.missing}:
        print(
            "releases of earlier versions keep what they hold back beside the cleared rows, where "
            "a trainer may read it: move quarantine.jsonl and rejected.jsonl out of the folder"
        )
    if not answer.compared and not answer.keys:
        print(
            "not compared with the ledger: worth no more than the manifest is "
            "(--audit asks what is known of its rows now)"
        )
