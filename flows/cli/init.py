"""`poisonwatch init`: from rows to an audit file that can be run. No model is loaded.

The docstring of a command is its help: what it does, and an example that runs.
"""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from poisonwatch.errors import InputError
from poisonwatch.flows.cli.reading_options import HubOption, ReadingOptions


def init(
    folder: Annotated[Path, Parameter(help="Where the files go; created if missing.")] = Path(),
    /,
    *,
    source: Annotated[
        str | None,
        Parameter(
            help="The rows that are to be audited: a file, folder, glob or URL. Without it, the "
            "audit file is a template."
        ),
    ] = None,
    hub: HubOption = False,
    reading: ReadingOptions | None = None,
    reference: Annotated[
        str | None, Parameter(help="Rows that you trust: a file, folder, glob or URL.")
    ] = None,
    trusted: Annotated[
        int | None,
        Parameter(
            help="How many rows of SOURCE are drawn at random and set apart as trusted; 0 for "
            "none. Default: 150, at most a third; none where that is fewer than 100, or there "
            "is a --reference."
        ),
    ] = None,
    packs: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Ready-made sentinels, by their names in `poisonwatch packs`. "
            "Default: those that go with what the rows are about.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        Parameter(
            help="The model that will be trained: a hub id, or a folder. Default: a small one, "
            "for a first look."
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="Draws the rows that are set apart.")] = 0,
    force: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Write over what an earlier init wrote."),
    ] = False,
    yes: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Ask nothing: take what is proposed."),
    ] = False,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Write an audit file to start from. With --source, of your own rows: they are read, trusted
    rows are set apart where you have none, and sentinels are proposed by what the rows are about.

    In a terminal it asks for what no option says.

    Example: `poisonwatch init my-audit --source rows.jsonl`
    """
    if trusted is not None and trusted < 0:
        raise InputError(f"--trusted is {trusted}: set some rows apart, or none (0)")
    if trusted and reference is not None:
        raise InputError("--reference names trusted rows, and --trusted sets some apart: give one")
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not yes and not json
    from poisonwatch.flows.cli import init_steps

    if source is None and asks:
        source = init_steps.ask_for_rows()
    if source is None:
        if trusted is not None or reference or packs or model or hub or reading is not None:
            raise InputError("these options go with rows: name them with --source")
        init_steps.write_templates(folder, force=force, as_json=json)
        return
    wishes = init_steps.Wishes(
        folder=folder,
        source=source,
        hub=hub,
        reading={} if reading is None else reading.to_settings(),
        reference=reference,
        trusted=trusted,
        packs=packs,
        model=model,
        seed=seed,
        force=force,
    )
    init_steps.write_first_audit(wishes, asks=asks, as_json=json)
