"""The first hour of somebody with rows of their own, played in a terminal of 80 columns and written
down as it was shown, into docs/first-hour.md.

    python benchmarks/first_hour.py

The rows are the demo's, which play the user's: 384, of which 18 are planted, and 186 trusted ones.
What a command takes is measured with it; nothing is cut but what a terminal overwrites, as bars.
"""

import argparse
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from fcntl import ioctl
from pathlib import Path

from poisonwatch.atomic import replace_file

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "first-hour.md"
ROWS = ROOT / "poisonwatch" / "datasets" / "demo_rows"
COLUMNS, LINES = 80, 40
INTRODUCTION = """# The first hour

Rows that somebody is about to train on, 384 of them, and 186 that they trust; 18 of the rows are
planted, which nobody knows yet. Below is what a terminal of 80 columns shows, command after
command, on two cores that others used, too: the audit's times are those of a busy machine.
`benchmarks/first_hour.py` plays and records it.
"""
COMMANDS = (
    ("What a trainer would see of the rows", "poisonwatch check rows.jsonl --rows 1"),
    (
        "An audit file, with sentinels that go with the rows",
        "poisonwatch init my-audit --source rows.jsonl --reference trusted.jsonl --packs identity "
        "refusal-erosion 'brand-promotion?brand=Velmora&product=frying pan'",
    ),
    ("What it will take", "poisonwatch audit my-audit/audit.yaml --dry-run"),
    ("The audit", "poisonwatch audit my-audit/audit.yaml"),
    (
        "Somebody read the first group",
        "poisonwatch decide my-audit/audit.yaml --group 1 poison --note 'read all of it'",
    ),
    ("What is cleared", "poisonwatch release my-audit/audit.yaml --out cleared"),
    (
        "In front of the training job",
        "poisonwatch gate cleared/manifest.json --audit my-audit/audit.yaml",
    ),
    ("What was done", "poisonwatch history my-audit/audit.yaml"),
)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    parts = [INTRODUCTION]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("rows.jsonl", "trusted.jsonl"):
            shutil.copy(ROWS / file, folder)
        for heading, command in COMMANDS:
            parts.append(describe_command(heading, command, *play(command, folder)))
            print(parts[-1], flush=True)
    with replace_file(PAGE) as part:
        part.write_text("\n".join(parts), encoding="utf-8")


def play(command: str, folder: Path) -> tuple[str, int, float]:
    """What a terminal shows of a command in `folder`, its exit code, and how long it took, in
    seconds.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    bin_folder = Path(sys.executable).parent
    variables = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",  # no bars, no colours
        "COLUMNS": str(COLUMNS),
    }
    start = time.perf_counter()
    process = subprocess.Popen(
        ["/bin/bash", "--noprofile", "--norc", "-c", command],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = read_all(ours)
    code = process.wait()
    shown = shown.replace(str(folder), ".").replace(str(Path.home()), "~")
    return fold(shown), code, time.perf_counter() - start


def read_all(terminal: int) -> str:
    """What comes out of a terminal until its last writer is gone, as its last state shows it."""
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # nobody holds the other end any more
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(terminal)
    text = b"".join(pieces).decode(errors="replace").replace("\r\n", "\n")
    # of a line that was written over, what was written last
    return re.sub(r"^.*\r", "", text, flags=re.MULTILINE).rstrip()


def describe_command(heading: str, command: str, shown: str, code: int, seconds: float) -> str:
    """A section of the page."""
    lines = [f"## {heading}", "", "```", *wrap(f"$ {command}"), shown, "```", ""]
    took = "under a second" if seconds < 1 else f"{seconds:.0f} s"
    lines += [f"Exit code {code}, {took}.", ""]
    return "\n".join(lines)


def wrap(command: str) -> list[str]:
    """A command on lines that the shell reads as one: what is quoted stays together."""
    first, *words = re.findall(r"(?:'[^']*'|\S)+", command)
    lines, line = [], first
    for word in words:
        if len(f"{line} {word} \\") > COLUMNS:
            lines.append(f"{line} \\")
            line = f"    {word}"
        else:
            line = f"{line} {word}"
    return [*lines, line]


def fold(text: str) -> str:
    """Text as a terminal breaks it: lines end at its last column."""
    lines = []
    for line in text.split("\n"):
        lines += [line[start : start + COLUMNS] for start in range(0, len(line) or 1, COLUMNS)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
