"""What the commands do that ask or change the ledger: release, decide, decisions, gate. Heavy
imports wait until a command really runs.
"""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

EXIT_NOT_CLEARED = 3
PLACES_SHOWN = 20


def release(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    out: Annotated[
        Path,
        Parameter(help="A new folder for the clean split, the manifest, and what is held back."),
    ],
) -> None:
    """Write the rows that audits cleared, as they came in."""
    from poisonwatch.config import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.release.release import write_release as release_rows

    settings = load_config(config)
    with Ledger.existing(settings.state) as ledger:
        counts = release_rows(ledger, settings.name, out)
    print(
        f"{counts.total} audited rows: {counts.clean} released, {counts.quarantined} quarantined, {counts.rejected} rejected"
    )
    if counts.pending:
        print(f"{counts.pending} rows were pulled and not audited yet: they are not among these")
    print(f"manifest: {out / 'manifest.json'}")


def decide(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    row: Annotated[
        str,
        Parameter(
            help="The row: 8 or more digits of its example id, or FILE:POSITION, both as in flags.jsonl."
        ),
    ],
    verdict: Annotated[
        Literal["poison", "benign", "unsure"],
        Parameter(help="unsure takes back what was decided before."),
    ],
    /,
    *,
    note: Annotated[str, Parameter(help="Why.")] = "",
    author: Annotated[str | None, Parameter(help="Who decides. Default: your user name.")] = None,
) -> None:
    """Append a verdict on a row to the ledger's chain of decisions."""
    import getpass

    from poisonwatch.config import load_config
    from poisonwatch.ledger import decisions
    from poisonwatch.ledger.ledger import Ledger

    with Ledger.existing(load_config(config).state) as ledger:
        made = decisions.record_decision(
            ledger, row, verdict, note, getpass.getuser() if author is None else author
        )
    print(f"decision {made.number}: {made.example_id[:16]} is {made.verdict}")


def decisions(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
) -> None:
    """Print every decision, oldest first, after checking that none was changed or removed."""
    from poisonwatch.config import load_config
    from poisonwatch.ledger.decisions import read_decisions, verify_chain
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.text.display import excerpt

    with Ledger.existing(load_config(config).state) as ledger:
        count, last = verify_chain(ledger)
        for made in read_decisions(ledger):
            who = f"{made.decided_at}  {excerpt(made.author, 30)}"
            print(
                f"{made.number:>5}  {who}  {made.example_id[:16]}  {made.verdict:<7}  {excerpt(made.note, 200)}"
            )
    print(f"{count} decisions, unbroken up to {last[:16]}")


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
            help="The audit file whose ledger is asked. Without it, a manifest is compared with its files alone."
        ),
    ] = None,
    model_version: Annotated[
        str | None,
        Parameter(
            help="SHA-256 of the model that must have been guarded, or its first 8 or more digits. Default: the audit file's."
        ),
    ] = None,
    sentinels_version: Annotated[str | None, Parameter(help="The same of the sentinels.")] = None,
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Print the answer as one JSON object."),
    ] = False,
) -> int:
    """Say whether exactly these rows are cleared; returns the exit code: 0 all are, 3 some are not."""
    from json import dumps

    from poisonwatch.release.gate import check_cleared

    answer = check_cleared(paths, audit, model_version, sentinels_version)
    if json:
        print(dumps(answer.record()))
        return 0 if answer.cleared else EXIT_NOT_CLEARED
    print(answer.headline)
    for reason, count in answer.reasons.items():
        print(f"{count:>8}  {reason}")
    for place in answer.missing[:PLACES_SHOWN]:
        print(
            "  ".join(
                filter(
                    None, (place.words, place.example_id and place.example_id[:16], place.reason)
                )
            )
        )
    if len(answer.missing) > PLACES_SHOWN:
        print(f"and {len(answer.missing) - PLACES_SHOWN} more (--json names all)")
    if not answer.compared:
        print(
            "not compared with the ledger: worth no more than the manifest is (--audit asks what is known of its rows now)"
        )
    return 0 if answer.cleared else EXIT_NOT_CLEARED
