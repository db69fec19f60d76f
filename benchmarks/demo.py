"""The demo on several seeds: planted rows found, wrong flags, seconds of the whole command.

python benchmarks/demo.py [--seeds 3]
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRADE = re.compile(r"planted rows: (\d+) of (\d+) flagged; wrong flags: (\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| seed | planted rows flagged | wrong flags | seconds |\n|---|---|---|---|")
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "poisonwatch.flows.cli",
                "demo",
                str(Path(folder) / "demo"),
                "--seed",
                str(seed),
            ]
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - start
        found = GRADE.search(done.stdout)
        if not found:
            raise SystemExit(f"the demo printed no grade:\n{done.stdout}")
        print(f"| {seed} | {found[1]} of {found[2]} | {found[3]} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
