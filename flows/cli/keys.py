"""What the commands `keys ...` do: make a key, show which keys sign, and sign what is not signed.
Heavy imports wait until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from poisonwatch.errors import InputError

if TYPE_CHECKING:
    from poisonwatch.ledger.signing import UnsignedRecord

AUDIT_SUFFIXES = {".yaml", ".yml"}
EXIT_DECLINED = 1
LONGEST_ITEM = 60  # characters of what a record is about


def init(
    folder: Annotated[Path, Parameter(help="Where the two files go; made where there is none.")],
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Make a key that signs, and its public part: poisonwatch.key, which only you can read, and
    poisonwatch.pub.

    Whoever holds the first can clear rows: keep it out of the database, of backups of it, and of
    repositories. The second goes to whoever asks the gate.

    Example: `poisonwatch keys init keys`
    """
    from json import dumps

    from poisonwatch.attestation.keys import SHOWN_DIGITS, create_keys

    made = create_keys(folder)
    if json:
        print(dumps({"id": made.id, "private": str(made.private), "public": str(made.public)}))
        return
    print(f"key {made.id[:SHOWN_DIGITS]}")
    print(f"  private   {made.private}   signs; yours alone (mode 0600)")
    print(f"  public    {made.public}   checks signatures; give it to whoever asks the gate")
    print("in the audit file (relative names start at its folder):")
    print("  signing:")
    print(f"    key: {made.private.absolute()}")
    print(f"    public: [{made.public.absolute()}]")
    print("earlier records are not signed: `poisonwatch keys sign AUDIT.yaml` signs them")


def show(
    place: Annotated[
        Path, Parameter(help="An audit file (YAML), or a public key (poisonwatch.pub).")
    ],
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Print the id of a public key; or, of an audit file, who signs and whose signatures count, and
    how many records of its ledger they signed.

    Example: `poisonwatch keys show my-audit/audit.yaml`
    """
    from dataclasses import asdict
    from json import dumps

    from poisonwatch.attestation.keys import SHOWN_DIGITS, read_public_key
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.ledger.signing import count_signed
    from poisonwatch.text.words import plural

    if place.suffix not in AUDIT_SUFFIXES:
        id = read_public_key(place).id
        print(dumps({"id": id}) if json else id)
        return
    settings = load_config(place)
    signer = settings.signing.load_signer()
    keys = settings.signing.load_public_keys()
    with open_to_read(settings.state) as ledger:
        counts = count_signed(ledger, keys)
    if json:
        signs = None if signer is None else signer.key_id
        records = [asdict(count) for count in counts]
        print(dumps({"signs": signs, "counts": list(keys), "records": records}))
        return
    print(f"signs     {'nobody' if signer is None else signer.key_id[:SHOWN_DIGITS]}")
    print(f"counts    {', '.join(key[:SHOWN_DIGITS] for key in keys) or 'none (signing.public)'}")
    for count in counts:
        print(f"{count.kind:<9} {plural(count.records, 'record')}, {count.signed} signed")
    unsigned = sum(count.records - count.signed for count in counts)
    if unsigned and keys:
        print(f"{unsigned} not signed: `poisonwatch keys sign {place}` signs them, if you mean to")


def sign(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    records: Annotated[
        list[int] | None,
        Parameter(help="Their numbers. Default: all that no key that counts signed."),
    ] = None,
    /,
    *,
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, help="Sign without asking.")
    ] = False,
    json: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Print it as one JSON object; goes with --yes."
        ),
    ] = False,
) -> int:
    """Sign records of the ledger that no key that counts signed: of audits and decisions from
    before there was a key, or whose signing failed.

    It is you who vouches for them: each is listed by number, kind, what it is about, and time, and
    you are asked. The ledger is verified first, and nothing is signed where anything differs from
    its records. Exit code 1: you said no.

    Example: `poisonwatch keys sign my-audit/audit.yaml 12 13 --yes`
    """
    from json import dumps

    from poisonwatch.attestation.keys import SHOWN_DIGITS
    from poisonwatch.config_file import load_config
    from poisonwatch.errors import ConfigError, OperationError
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.signing import list_unsigned, sign_records
    from poisonwatch.text.words import plural
    from poisonwatch.verification.verify import verify_ledger

    if json and not yes:
        raise InputError("--json asks nothing: say --yes beside it")
    settings = load_config(config)
    signer = settings.signing.load_signer()
    keys = settings.signing.load_public_keys()
    if signer is None or not keys:
        raise ConfigError(
            f"{config} names no key that signs, with its public part (signing.key, "
            "signing.public): `poisonwatch keys init FOLDER` makes one"
        )
    with Ledger.existing(settings.state, signer=signer) as ledger:
        # Before it is verified: what is added meanwhile is not signed.
        unsigned = _choose_records(list_unsigned(ledger, keys), records)
        found = verify_ledger(ledger, settings.name)
        if not found.is_whole:
            raise OperationError(
                f"the ledger is not what its records say ({found.differences[0].words}): "
                "`poisonwatch verify` names all; nothing was signed"
            )
        if not json:
            _print_records(unsigned)
        key = signer.key_id[:SHOWN_DIGITS]
        count = plural(len(unsigned), "record")
        if unsigned and not yes and not _agrees(f"sign {count} with key {key}? [y/N] "):
            print("nothing was signed")
            return EXIT_DECLINED
        sign_records(ledger, unsigned, signer)
    if json:
        print(dumps({"signed": [record.number for record in unsigned], "key": signer.key_id}))
    else:
        print(f"{count} signed by key {key}")
    return 0


def _choose_records(
    unsigned: "list[UnsignedRecord]", numbers: list[int] | None
) -> "list[UnsignedRecord]":
    """Those of these numbers; None: all. Raises InputError where one is not among them."""
    if numbers is None:
        return unsigned
    by_number = {record.number: record for record in unsigned}
    missing = [number for number in numbers if number not in by_number]
    if missing:
        raise InputError(
            f"record {missing[0]} is not there, or is signed: without numbers, "
            "`poisonwatch keys sign` lists what is not"
        )
    return [by_number[number] for number in dict.fromkeys(numbers)]


def _print_records(unsigned: "list[UnsignedRecord]") -> None:
    """A line each: number, kind, time (UTC), and what it is about."""
    from poisonwatch.text.display import excerpt

    width = max((len(str(record.number)) for record in unsigned), default=0)
    for record in unsigned:
        at = record.recorded_at[:16].replace("T", " ")
        about = excerpt(record.item or "", LONGEST_ITEM)
        print(f"{record.number:>{width}}  {record.kind:<12}  {at}  {about}".rstrip())


def _agrees(question: str) -> bool:
    """Ask on the terminal. Raises InputError where nobody can answer."""
    if not sys.stdin.isatty():
        raise InputError("nothing was signed: look through the records above, and say --yes")
    try:
        return input(question).strip().lower() in ("y", "yes")
    # The end of what is typed (Ctrl-D).
    except EOFError:
        return False
