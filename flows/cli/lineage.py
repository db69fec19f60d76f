"""`poisonwatch lineage`: where rows came from, and where they went.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from poisonwatch.lineage.step import Lineage, Step

TITLES = {
    "source": "sources",
    "audit": "audits",
    "decision": "decisions",
    "release": "releases",
    "training run": "training runs",
    "probe": "probes",
}
STEPS_SHOWN = 20  # of a kind
NAME_CHARACTERS, WORD_CHARACTERS = 40, 200


def lineage(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    what: Annotated[
        str | None,
        Parameter(
            help="A row (8 or more digits of its id, or FILE:LINE), or a release (its "
            "manifest.json, or 8 or more digits of that one's SHA-256). Default: all rows."
        ),
    ] = None,
    /,
    *,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Print where rows came from, and where they went: sources, audits, decisions, releases, and
    the training runs that named a release.

    A training run does so by `poisonwatch gate MANIFEST --audit AUDIT --training-run ID`.

    Example: `poisonwatch lineage my-audit/audit.yaml cleared/manifest.json`
    """
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.lineage.trace import trace

    settings = load_config(config)
    with open_to_read(settings.state) as ledger:
        found = trace(ledger, settings.name, what)
    if json:
        print(dumps(found.record()))
        return
    _print_lineage(found)


def _print_lineage(found: "Lineage") -> None:
    from poisonwatch.lineage.step import KINDS
    from poisonwatch.text.display import excerpt

    print(f"lineage of {excerpt(found.of, WORD_CHARACTERS)}")
    for kind in KINDS:
        steps = found.list(kind)
        print(f"\n{TITLES[kind]}{'' if steps else ': none'}")
        # The latest are at the end.
        if len(steps) > STEPS_SHOWN:
            print(f"  ... {len(steps) - STEPS_SHOWN} earlier (--json has all)")
        for step in steps[-STEPS_SHOWN:]:
            _print_step(step)


def _print_step(step: "Step") -> None:
    from poisonwatch.text.display import excerpt

    at = "" if step.at is None else f"  {step.at[:16].replace('T', ' ')} UTC"
    print(f"  {excerpt(step.name, NAME_CHARACTERS)}{at}")
    print(f"      {excerpt(step.words, WORD_CHARACTERS)}")
