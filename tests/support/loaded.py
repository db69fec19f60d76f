"""What a command of the command line imports, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Packages that take long to import: a third of a second and more each, PyTorch and Prefect two.
MODEL = frozenset({"torch", "transformers", "datasets", "accelerate"})
SCIENCE = frozenset({"scipy", "sklearn", "pandas", "matplotlib", "faiss"})
SERVERS = frozenset({"mlflow", "prefect", "ray", "great_expectations"})
HEAVY = MODEL | SCIENCE | SERVERS

# What every command imports, however little it does, and what the ledger needs; then each command is
# a fork. Whether these are light is seen as well: what they import, each command has.
_RUN = """
import json, os, sys, traceback
import poisonwatch.config_file, poisonwatch.ledger.ledger
from poisonwatch.flows.cli import main

def run(arguments, listed, out, err):
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    with open(listed, "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

codes = []
for arguments, *paths in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        run(arguments, *paths)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(codes))
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, what it printed, the heavy packages it imported."""

    code: int
    out: str
    err: str
    heavy: set[str]


def run_loading(folder: Path, *commands: Sequence[str]) -> list[Done]:
    """Run `poisonwatch` in a folder with each of these arguments, one after the other."""
    with tempfile.TemporaryDirectory(prefix="poisonwatch-loaded-") as name:
        paths = [
            [f"{name}/{number}-{kind}" for kind in ("imported", "out", "err")]
            for number in range(len(commands))
        ]
        asked = [[list(command), *places] for command, places in zip(commands, paths, strict=True)]
        done = subprocess.run(
            [sys.executable, "-c", _RUN],
            input=json.dumps(asked),
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        read = [[Path(place).read_text() for place in places] for places in paths]
    return [
        Done(code, out, err, HEAVY & set(json.loads(imported)))
        for code, (imported, out, err) in zip(json.loads(done.stdout), read, strict=True)
    ]
