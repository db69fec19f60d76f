"""Run the tests with the newest versions that pyproject.toml allows, and print what breaks: a line
a failure.

    python requirements/try_newest.py                                (make newest)
    python requirements/try_newest.py tests/integrations -x          paths and options of pytest
    python requirements/try_newest.py --alone mlflow==3.18.0 tests/integrations

For every night: whoever runs it hears of a version that breaks something before users install it.
newest.txt beside this file, which it writes, has the versions; PyTorch stays as it is pinned.
`--alone` takes a version without what it asks for, as where the index has not all of it yet.

The environment that it makes (build/newest) holds what differs from the one that runs it, which
lies behind it: a few hundred MB less, and minutes.

Exit code 0: all tests pass; 1: some do not; 2: the versions cannot be resolved or installed.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
NEWEST = FOLDER / "newest.txt"
HEADER = "# Written by `make newest`: the newest versions that pyproject.toml allows.\n"
UV = (sys.executable, "-m", "uv", "pip")
# Its builds without CUDA lie at no package index (make_lock.py); what every process would import
# anew is left out there, too.
PINNED = "torch"
LEFT_OUT = "rfc3987-syntax"
# What talks to the packages that change most.
SUBSET = (
    "tests/integrations",
    "tests/flows/test_audit.py",
    "tests/test_deployments.py",
    "tests/test_deployments_files.py",
)
MAX_SHOWN_CHARACTERS = 160


def main() -> int:
    """Resolve, install, test, print."""
    parser = argparse.ArgumentParser(
        description="Run the tests with the newest allowed versions, and print what breaks."
    )
    parser.add_argument("--alone", action="append", default=[], metavar="NAME==VERSION")
    parser.add_argument("--as-written", action="store_true", help="take newest.txt as it is")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "newest")
    parser.add_argument("--all", action="store_true", help="every test")
    chosen, pytest_arguments = parser.parse_known_args()
    try:
        if not chosen.as_written:
            resolve()
        changed = list_changes(NEWEST.read_text(encoding="utf-8"))
        make_environment(chosen.folder, changed, chosen.alone)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd[:5])} ...: {error.stderr.strip()}", file=sys.stderr)
        return 2
    for name, (before, after) in {**changed, **_read_alone(chosen.alone)}.items():
        print(f"{name} {before or 'none'} -> {after}")
    names_tests = any(
        (ROOT / argument.partition("::")[0]).exists() for argument in pytest_arguments
    )
    if not names_tests:
        pytest_arguments += ["tests"] if chosen.all else SUBSET
    if chosen.alone:
        # That its parts are of another version is known.
        pytest_arguments = ["-W", "ignore:Versions of ", *pytest_arguments]
    return run_tests(chosen.folder, pytest_arguments)


def resolve() -> None:
    """Write newest.txt."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = FOLDER.parent / "build" / "newest-pinned.txt"
    pinned.parent.mkdir(exist_ok=True)
    pinned.write_text("\n".join(line for line in pins if line.startswith(f"{PINNED}==")))
    command = [*UV, "compile", "pyproject.toml", "--extra", "dev", "--upgrade", "--universal"]
    command += ["--python-version", "3.11", "--constraint", str(pinned)]
    command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--quiet"]
    command += ["--no-emit-package", LEFT_OUT]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    NEWEST.write_text(HEADER + done.stdout, encoding="utf-8")


def list_changes(text: str) -> dict[str, tuple[str | None, str]]:
    """Version here (None: not installed) and newest one of each package of newest.txt that differs
    and is for this platform.
    """
    changes = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        requirement = Requirement(line)
        # What PyTorch's builds for CUDA need comes without versions of ours.
        is_here = requirement.marker is None or requirement.marker.evaluate()
        (wanted,) = (each.version for each in requirement.specifier)
        before = find_version(requirement.name)
        if is_here and before is None and _is_of_pytorch(requirement.name):
            continue
        if is_here and before != wanted and requirement.name != PINNED:
            changes[canonicalize_name(requirement.name)] = (before, wanted)
    return changes


def find_version(name: str) -> str | None:
    """The version that is installed; None where none is."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_of_pytorch(name: str) -> bool:
    return name.startswith(("nvidia-", "cuda-", "triton"))


def _read_alone(alone: list[str]) -> dict[str, tuple[str | None, str]]:
    pairs = (text.split("==") for text in alone)
    return {name: (find_version(name), wanted) for name, wanted in pairs}


def make_environment(
    folder: Path, changes: dict[str, tuple[str | None, str]], alone: list[str]
) -> None:
    """An environment with these versions, and all else from the one that runs this."""
    venv.create(folder, clear=True, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    behind = sysconfig.get_path("purelib")
    (site / "behind.pth").write_text(f"import site; site.addsitedir({behind!r})\n")
    wanted = [f"{name}=={after}" for name, (_, after) in changes.items()]
    install = [*UV, "install", "--quiet", "--no-deps", "--python", str(folder / "bin" / "python")]
    # The latter in a step of its own: of one package, the last one stays.
    for pins in filter(None, (wanted, alone)):
        subprocess.run([*install, *pins], cwd=ROOT, check=True, capture_output=True, text=True)
    _copy_programs(Path(sys.executable).parent, folder / "bin")


def _copy_programs(source: Path, target: Path) -> None:
    """The programs of packages (`prefect`, `mlflow`), run by the interpreter beside them."""
    for program in source.iterdir():
        place = target / program.name
        if place.exists() or program.is_symlink() or not program.is_file():
            continue
        first, _, rest = program.read_bytes().partition(b"\n")
        if first.startswith(b"#!") and b"python" in first:
            place.write_bytes(b"#!" + os.fsencode(target / "python") + b"\n" + rest)
            place.chmod(0o755)


def run_tests(folder: Path, arguments: list[str]) -> int:
    """Run pytest in the environment, print a line a failure and a sum; returns the exit code."""
    told = folder / "tests.xml"
    command = [str(folder / "bin" / "python"), "-m", "pytest", "-q", "--no-header"]
    command += ["-p", "no:cacheprovider", f"--junitxml={told}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    if not told.exists():
        print((done.stdout + done.stderr).strip()[-4000:], file=sys.stderr)
        return 2
    cases = list(ElementTree.parse(told).iter("testcase"))  # noqa: S314  pytest wrote it
    broken = list_failures(cases)
    print("\n".join(broken) or "nothing breaks")
    print(f"{len(cases)} tests, {len(broken)} broken")
    return int(done.returncode != 0)


def list_failures(cases: list[ElementTree.Element]) -> list[str]:
    """A line for each test that failed or could not be run: its name, and how the error begins."""
    lines = []
    for case in cases:
        failed = case.find("failure")
        failed = case.find("error") if failed is None else failed
        if failed is not None:
            said = " ".join((failed.get("message") or failed.text or "").split())
            name = f"{case.get('classname')}.{case.get('name')}"
            lines.append(f"{name}: {said[:MAX_SHOWN_CHARACTERS]}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
