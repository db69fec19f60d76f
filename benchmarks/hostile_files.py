"""Files that are made to take all memory, time or stack: what reading each of them costs, and what
is said of it.

    python benchmarks/hostile_files.py [KIND ...] [--json]

Each kind is written into a folder of its own, beside an audit file and sentinels that are in order
where the kind is not one of these. A child process then reads the audit file, the sentinels, and
all rows into a ledger, as an audit does before it loads a model. It ends with 0, or with 2 and one
line.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hostile_columns
import hostile_places
import hostile_text
from hostile_kinds import KINDS, ROW, write_file

# Each fills the register as it is imported.
FAMILIES = (hostile_text, hostile_columns, hostile_places)
MAX_SECONDS = 120  # of processor time, after which a child is ended by the kernel
AUDIT = "name: hostile\nsource: {source}\nsentinels: {sentinels}\nstate: sqlite:///ledger.db\n"
SENTINELS = "- {id: a-1, prompt: Is it safe?, forbidden: Never.}\n"


@dataclass(frozen=True, slots=True)
class Reading:
    """What it took to read a file of a kind: peak memory, processor seconds, exit code (negative:
    the signal that ended it), and what was printed.
    """

    kind: str
    mib: int
    seconds: float
    code: int
    lines: tuple[str, ...]


def prepare(kind: str, folder: Path) -> None:
    """Write the file of a kind, and what is in order beside it: `audit.yaml` leads to all."""
    written = KINDS[kind](folder)
    config, sentinels = folder / "audit.yaml", folder / "sentinels.yaml"
    source = "rows.jsonl"
    if written in (config, sentinels):
        write_file(folder / source, ROW)
    else:
        source = os.fsdecode(json.dumps(str(written)).encode())
    if written != sentinels:
        write_file(sentinels, SENTINELS.encode())
    if written != config:
        if b"\xe9" in os.fsencode(written):
            source = '"*/rows.jsonl"'
        config.write_text(AUDIT.format(source=source, sentinels=sentinels.name), encoding="utf-8")


def read_all(config: Path) -> None:
    """What an audit reads before it loads a model. Raises PoisonwatchError as it does."""
    from poisonwatch.flows.cli.audit import load_and_check
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger

    settings = load_and_check(config)
    with Ledger.at(settings.state) as ledger:
        stats = ingest(ledger, settings.name, settings.source)
    print(f"{stats.read} rows read, {stats.new} new")


def measure(kind: str) -> Reading:
    """Read a file of a kind in a child process."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder = Path(name)
        config, said = folder / "audit.yaml", folder / "said"
        # By a process of its own: what this one takes to write, would count as the reader's.
        status, _ = _run_child(lambda: prepare(kind, folder), said)
        if status:
            raise RuntimeError(f"{kind} could not be written: {said.read_text()}")
        status, used = _run_child(lambda: read_all(config), said)
        text = said.read_text(encoding="utf-8", errors="surrogateescape")
    return Reading(
        kind=kind,
        mib=used.ru_maxrss // 1024,
        seconds=round(used.ru_utime + used.ru_stime, 1),
        code=os.waitstatus_to_exitcode(status),
        lines=tuple(text.splitlines()),
    )


def _run_child(function: Callable[[], object], said: Path) -> tuple[int, Any]:
    """Call a function in a process that ends as the command line would: its wait status, and what
    it used.
    """
    child = os.fork()
    if child:
        _, status, used = os.wait4(child, 0)
        return status, used
    from poisonwatch.errors import PoisonwatchError
    from poisonwatch.flows.cli.app import complain

    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
        # no file of a crash
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # one that waits uses no processor
        signal.alarm(10 * MAX_SECONDS)
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            function()
            code = 0
        except PoisonwatchError as error:
            complain(str(error))
            code = error.exit_code
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def measure_all(kinds: Sequence[str] = ()) -> list[Reading]:
    """Every kind, or those that are named, one after the other."""
    # Once, and not in every child.
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import poisonwatch.flows.cli.app
    import poisonwatch.flows.cli.audit
    import poisonwatch.integrations.apprise.addresses
    import poisonwatch.ledger.intake
    import poisonwatch.ledger.ledger
    import poisonwatch.sentinels.sentinel
    import poisonwatch.sources.arrow
    import poisonwatch.sources.open  # noqa: F401

    return [measure(kind) for kind in kinds or KINDS]


def main() -> None:
    """Print a table, or a JSON object a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="all, where none is named")
    parser.add_argument("--json", action="store_true", help="one JSON object a kind")
    arguments = parser.parse_args()
    if not arguments.json:
        print("| file | MiB | seconds | exit code | lines |\n|---|---|---|---|---|")
    for kind in arguments.kinds or KINDS:
        (reading,) = measure_all([kind])
        if arguments.json:
            print(json.dumps(asdict(reading)), flush=True)
            continue
        cells = (reading.kind, reading.mib, reading.seconds, reading.code, len(reading.lines))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
