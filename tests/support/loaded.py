"""What a command of the command line imports, in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Packages that take long to import: a third of a second and more each, PyTorch and Prefect two.
MODEL = frozenset({"torch", "transformers", "datasets", "accelerate"})
SCIENCE = frozenset({"scipy", "sklearn", "pandas", "matplotlib", "faiss"})
SERVERS = frozenset({"mlflow", "prefect", "ray", "great_expectations"})
HEAVY = MODEL | SCIENCE | SERVERS

_RUN = """
import json, sys
from poisonwatch.flows.cli import main
try:
    main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, what it printed, the heavy packages it imported."""

    code: int
    out: str
    err: str
    heavy: set[str]


def run_loading(folder: Path, *arguments: str, **environment: str) -> Done:
    """Run `poisonwatch` with these arguments; `folder` takes a file of what was imported."""
    listed = folder / "imported.json"
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(listed), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = set(json.loads(listed.read_text()))
    return Done(done.returncode, done.stdout, done.stderr, HEAVY & imported)
