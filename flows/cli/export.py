"""What `export` does: flagged rows for other tools. Heavy imports wait until it really runs.

The docstring of the command is its help: what it does, and an example that runs.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from poisonwatch.errors import InputError


def export(
    config: Annotated[Path, Parameter(help="The audit file (YAML).")],
    /,
    *,
    format: Annotated[
        Literal["sarif", "csv", "parquet", "argilla", "label-studio"],
        Parameter(
            help="sarif: what code hosts show in a pull request; argilla, label-studio: what these "
            "import; csv, parquet: a line a row."
        ),
    ],
    audit: Annotated[
        str | None,
        Parameter(
            help="The id of an audit, or all. Default: the last audit that rows waited for. A row "
            "that several flagged stands with the last of them."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(help="The file that is written. Default: standard output; not for parquet."),
    ] = None,
    state: Annotated[
        Literal["open", "all"],
        Parameter(help="open: rows that nobody decided on; all: the others, too."),
    ] = "open",
    root: Annotated[
        Path | None,
        Parameter(
            help="sarif: the folder that files are named from, as the repository's. "
            "Default: the audit file's."
        ),
    ] = None,
) -> None:
    """Write the rows that an audit flagged for other tools: SARIF, CSV, Parquet, Argilla, Label
    Studio.

    SARIF has a result for each place of the source that holds a flagged row, by file and line.

    Example: `poisonwatch export my-audit/audit.yaml --format sarif --output flags.sarif`
    """
    from poisonwatch.config_file import load_config
    from poisonwatch.exports.export import format_rows, locate_rows, write_rows
    from poisonwatch.exports.flagged import collect_flagged, count_decided
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.text.words import plural

    if format == "parquet" and output is None:
        raise InputError("a Parquet file is no text: name the file that is written with --output")
    if root is not None and format != "sarif":
        raise InputError("--root is for --format sarif alone: leave it out")
    settings = load_config(config)
    # A run's own config.yaml lies elsewhere than its audit file did.
    folder = Path(settings.replay.folder or config.resolve().parent)
    with open_to_read(settings.state) as ledger:
        rows = collect_flagged(ledger, settings.name, audit, state)
        places = locate_rows(ledger, rows, settings, folder, root)
        decided = count_decided(ledger, settings.name, audit) if state == "open" else 0
    if output is None and format != "parquet":
        sys.stdout.write(format_rows(rows, format, settings.name, places))
    elif output is not None:
        write_rows(rows, format, settings.name, places, output)
        print(f"wrote {output}: {plural(len(rows), 'flagged row')}")
    if format == "sarif":
        gone = sum(row["example_id"] not in places.of for row in rows)
        _tell_of_left_out(gone, "the source does not hold them any more")
    _tell_of_left_out(decided, "decided on; --state all has them, too")


def _tell_of_left_out(count: int, why: str) -> None:
    """Say on stderr how many flagged rows are not written."""
    from poisonwatch.text.words import plural

    if count:
        print(f"{plural(count, 'flagged row')} left out: {why}", file=sys.stderr)
