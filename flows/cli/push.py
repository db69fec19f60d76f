"""`poisonwatch push`: cleared rows as a data set on the hub.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

EXIT_NOT_CLEARED = 3


def push(
    config: Annotated[Path, Parameter(help="The audit file (YAML), whose ledger is asked.")],
    manifest: Annotated[Path, Parameter(help="The manifest.json of a release.")],
    name: Annotated[str, Parameter(help="The data set, as USER/NAME.")],
    /,
    *,
    public: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Make a new data set public."),
    ] = False,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> int:
    """Put a release on the Hugging Face hub, if the gate clears it: its rows, manifest and
    signatures, in one commit; exit code 3 if it does not.

    A new data set is private, and gets a card that says how its files load. The token is HF_TOKEN,
    or that of `hf auth login`; HF_ENDPOINT names another hub. What is held back is never sent. Undo
    it on the hub, by its commit.

    Example: `poisonwatch push my-audit/audit.yaml cleared/manifest.json me/cleared-rows`
    """
    from json import dumps

    from poisonwatch.release.gate import check_cleared
    from poisonwatch.release.push import push_release

    answer = check_cleared([manifest], config)
    if not answer.cleared:
        reasons = ", ".join(f"{count} {reason}" for reason, count in answer.reasons.items())
        print(dumps(answer.record()) if json else f"not pushed: {answer.headline} ({reasons})")
        return EXIT_NOT_CLEARED
    pushed = push_release(manifest, name, public=public)
    if json:
        print(dumps(pushed.record()))
        return 0
    print(f"pushed {answer.rows} rows to {pushed.url}, commit {pushed.commit}")
    if pushed.kept_card:
        print("its card was there already, and stays: see that its `configs` name these files")
    return 0
