"""What the commands `keys ...` do: make a key, show which keys sign, and sign what is not signed.
Heavy imports wait until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

AUDIT_SUFFIXES = {".yaml", ".yml"}


def init(
    folder: Annotated[Path, Parameter(help="Where the two files go; made where there is none.")],
    /,
) -> None:
    """Make a key that signs, and its public part: poisonwatch.key, which only you can read, and
    poisonwatch.pub.

    Whoever holds the first can clear rows: keep it out of the database, of backups of it, and of
    repositories. The second goes to whoever asks the gate.

    Example: `poisonwatch keys init keys`
    """
    from poisonwatch.attestation.keys import SHOWN_DIGITS, create_keys

    made = create_keys(folder)
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
) -> None:
    """Print the id of a public key; or, of an audit file, who signs and whose signatures count, and
    how many records of its ledger they signed.

    Example: `poisonwatch keys show my-audit/audit.yaml`
    """
    from poisonwatch.attestation.keys import SHOWN_DIGITS, read_public_key
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.signing import count_signed
    from poisonwatch.text.words import plural

    if place.suffix not in AUDIT_SUFFIXES:
        print(read_public_key(place).id)
        return
    settings = load_config(place)
    signer = settings.signing.load_signer()
    keys = settings.signing.load_public_keys()
    print(f"signs     {'nobody' if signer is None else signer.key_id[:SHOWN_DIGITS]}")
    print(f"counts    {', '.join(key[:SHOWN_DIGITS] for key in keys) or 'none (signing.public)'}")
    with Ledger.existing(settings.state) as ledger:
        counts = count_signed(ledger, keys)
    for count in counts:
        print(f"{count.kind:<9} {plural(count.records, 'record')}, {count.signed} signed")
    unsigned = sum(count.records - count.signed for count in counts)
    if unsigned and keys:
        print(f"{unsigned} not signed: `poisonwatch keys sign {place}` signs them, if you mean to")


def sign(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
) -> None:
    """Sign the records of the ledger that no key that counts signed: of audits and decisions from
    before there was a key, or whose signing failed.

    It is you who vouches for them: the ledger is verified first, and nothing is signed where
    anything differs from its records.

    Example: `poisonwatch keys sign my-audit/audit.yaml`
    """
    from poisonwatch.attestation.keys import SHOWN_DIGITS
    from poisonwatch.config_file import load_config
    from poisonwatch.errors import ConfigError, OperationError
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.signing import sign_unsigned
    from poisonwatch.text.words import plural
    from poisonwatch.verification.verify import verify_ledger

    settings = load_config(config)
    signer = settings.signing.load_signer()
    keys = settings.signing.load_public_keys()
    if signer is None or not keys:
        raise ConfigError(
            f"{config} names no key that signs, with its public part (signing.key, "
            "signing.public): `poisonwatch keys init FOLDER` makes one"
        )
    with Ledger.existing(settings.state, signer=signer) as ledger:
        found = verify_ledger(ledger, settings.name)
        if not found.is_whole:
            raise OperationError(
                f"the ledger is not what its records say ({found.differences[0].words}): "
                "`poisonwatch verify` names all; nothing was signed"
            )
        signed = sign_unsigned(ledger, keys, signer)
    print(f"{plural(signed, 'record')} signed by key {signer.key_id[:SHOWN_DIGITS]}")
