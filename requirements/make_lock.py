"""Write the files beside this one: every package at its pinned version, with the SHA-256 of every
file that the package index has of it.

    python requirements/make_lock.py        (make lock)

pyproject.toml says which packages, constraints.txt which versions; the files are not edited by
hand. PyTorch stands apart, and so does what its builds for CUDA need: pip takes the build without
CUDA where one is offered, and nothing of CUDA is installed with it.
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
HEADER = "# Written by `make lock` from pyproject.toml and constraints.txt.\n"
# What is resolved for what: the extras of pyproject.toml.
EXTRAS = {
    "development.txt": ("dev",),
    "service.txt": ("adapters", "dashboard", "gcs", "languages", "oidc", "postgres", "s3"),
}
# Builds without CUDA are no files of the package index: nobody tells their hashes but this.
# A new version of PyTorch needs new ones: `pip hash torch-VERSION+cpu-*.whl`.
CPU_BUILDS = {
    "torch==2.13.0": (
        # cp311-manylinux_2_28_x86_64
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    ),
}
# Checks addresses in bills of materials. Where it is installed, whatever imports jsonschema (each
# audit, through Prefect) builds its grammar, more than a second; jsonschema does without.
LEFT_OUT = "rfc3987-syntax"
_CUDA = re.compile(r"(nvidia|cuda|triton)\b")


def main() -> None:
    """Resolve for each use, and write the files."""
    torch, cuda = "", dict[str, str]()
    for file, extras in EXTRAS.items():
        entries = split_entries(resolve(extras))
        torch = add_cpu_builds(entries.pop("torch"))
        cuda |= {name: entry for name, entry in entries.items() if _CUDA.match(name)}
        write_lock(file, [entry for name, entry in entries.items() if name not in cuda])
    write_lock("torch.txt", [torch])
    write_lock("torch-cuda.txt", list(cuda.values()))


def resolve(extras: tuple[str, ...]) -> str:
    """What the resolver makes of pyproject.toml and constraints.txt, for every platform."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"]
    for extra in extras:
        command += ["--extra", extra]
    command += ["--constraint", "constraints.txt", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-annotate", "--no-emit-index-url", "--no-header"]
    command += ["--no-emit-package", LEFT_OUT]
    done = subprocess.run(
        [*command, "--quiet"], cwd=FOLDER.parent, check=True, capture_output=True, text=True
    )
    return done.stdout


def split_entries(text: str) -> dict[str, str]:
    """One text a package, by its name: its line and the lines of its hashes."""
    entries = [part for part in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if part.strip()]
    return {entry.partition("==")[0]: entry for entry in entries}


def add_cpu_builds(entry: str) -> str:
    """PyTorch's entry with the hashes of its builds without CUDA.

    Raises KeyError where this version has none yet.
    """
    pin = entry.split()[0]
    added = [f" \\\n    --hash=sha256:{digest}" for digest in CPU_BUILDS[pin]]
    return entry.rstrip("\n") + "".join(added) + "\n"


def write_lock(file: str, entries: list[str]) -> None:
    """Write the entries.

    Raises ValueError where one has no hash.
    """
    for entry in entries:
        if "--hash=sha256:" not in entry:
            raise ValueError(f"{entry.split()[0]} has no hash: pip would refuse all")
    (FOLDER / file).write_text(HEADER + "".join(entries), encoding="utf-8")
    print(f"{FOLDER.name}/{file}: {len(entries)}")


if __name__ == "__main__":
    main()
