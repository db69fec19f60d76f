"""What the commands `keys ...` do: make a key, show which keys sign, and sign what is not signed.
Heavy imports wait until a command really runs.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


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
    print("what is signed by hand, once: `poisonwatch keys sign AUDIT.yaml`, for earlier audits")
