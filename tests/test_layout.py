"""How the house is divided: packages and who may import whom, tests beside them, addresses that stay."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from dear_tests import DEAR_FIXTURE_S, DEAR_S, OF_FIXTURE, OF_TEST, choose_dear, read_dear
from paths import ROOT, TESTS
from servers import http_receiver, postgres_server
from starters import names_a_starter

import poisonwatch

FOLDERS = ("poisonwatch", "tasks", "flows", "dashboards")
LONGEST_FILE = 400  # lines; a longer one holds two ideas


def list_modules(folder: str) -> list[Path]:
    """The Python files of a folder, without migrations and without what symlinks lead to."""
    linked = {ROOT / "poisonwatch" / name for name in ("tasks", "flows", "dashboards")}
    return [
        path
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "migrations" not in path.parts and not linked.intersection(path.parents)
    ]


def test_imports_run_one_way() -> None:
    """The contracts of pyproject.toml hold, over all of the package."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    seen = re.search(r"Analyzed (\d+) files", done.stdout)
    assert seen is not None
    assert int(seen[1]) >= 180, f"import-linter saw only {seen[1]} files"
    kept = re.search(r"Contracts: (\d+) kept, 0 broken", done.stdout)
    assert kept is not None
    assert int(kept[1]) >= 7


def test_no_import_is_relative() -> None:
    """One name for one module."""
    paths = [path for folder in FOLDERS for path in list_modules(folder)]
    assert len(paths) >= 170, f"only {len(paths)} files were looked at"
    for path in paths:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        levels = [node.level for node in nodes if isinstance(node, ast.ImportFrom)]
        assert not any(levels), f"{path.relative_to(ROOT)} imports relatively"


def test_no_file_is_too_long_to_hold_in_the_head() -> None:
    """At most 400 lines each."""
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in FOLDERS
        for path in list_modules(folder)
    }
    assert len(lengths) >= 170, f"only {len(lengths)} files were looked at"
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_folders_live_under_the_one_import_name() -> None:
    """poisonwatch/{tasks,flows,dashboards} are the top-level folders themselves."""
    for name in ("tasks", "flows", "dashboards"):
        assert (ROOT / "poisonwatch" / name).is_symlink()
        assert (ROOT / "poisonwatch" / name).resolve() == ROOT / name


def test_every_package_is_listed_for_the_wheel() -> None:
    """A package that setuptools is not told of is missing from the wheel, and an editable install
    hides it.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = set()
    for folder in FOLDERS:
        for path in list_modules(folder):
            name = ".".join(path.parent.relative_to(ROOT).parts)
            found.add(name if folder == "poisonwatch" else f"poisonwatch.{name}")
    assert len(found) >= 24
    assert found == listed


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    """A re-export would make `poisonwatch decide` load PyTorch."""
    exempt = {ROOT / "poisonwatch/__init__.py", ROOT / "flows/cli/__init__.py"}
    paths = [path for folder in FOLDERS for path in list_modules(folder)]
    packages = [path for path in paths if path.name == "__init__.py" and path not in exempt]
    assert len(packages) >= 20
    for path in packages:
        (only,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(only, ast.Expr), path


def test_git_tracks_every_module() -> None:
    """A pattern of .gitignore that swallows a folder does so silently."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--"]
    wanted = [f"{folder}/*.py" for folder in (*FOLDERS, "tests", "benchmarks")]
    done = subprocess.run([*command, *wanted], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_public_names_are_few_and_importable() -> None:
    """At most ten names, each of which exists."""
    assert len(poisonwatch.__all__) <= 10
    assert all(getattr(poisonwatch, name) is not None for name in poisonwatch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        poisonwatch.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("poisonwatch.gate", "require_cleared"),  # README: in front of a training job
        ("poisonwatch.tasks.gate", "require_cleared"),  # README: as a Prefect task
        ("poisonwatch.tasks.champion", "_load_pyfunc"),  # stands in every model registered so far
        ("poisonwatch.flows.audit", "audit"),  # deployments' entrypoints
        ("poisonwatch.flows.drill", "drill"),
        ("poisonwatch.flows.cli", "main"),  # the console script
    ],
)
def test_addresses_that_others_rely_on_stay(module: str, name: str) -> None:
    """They stand in training jobs, deployments and registered models."""
    assert callable(getattr(import_module(module), name))


def test_tests_mirror_the_packages() -> None:
    """tests/<package>/test_<module>.py for each file of the library."""
    # types and protocols that all others exercise
    shown_elsewhere = {"__init__", "arrays", "errors", "finding", "gate", "influence", "progress"}
    shown_elsewhere |= {"detection", "evidence", "fault", "neighbour_graph", "result", "trusted"}
    paths = [path for path in list_modules("poisonwatch") if path.stem not in shown_elsewhere]
    assert len(paths) >= 110, f"only {len(paths)} files were looked at"
    missing = []
    for path in paths:
        place = path.relative_to(ROOT / "poisonwatch")
        if not (TESTS / place.with_name(f"test_{path.name}")).exists():
            missing.append(place.as_posix())
    assert missing == []


def test_every_script_that_a_benchmark_names_runs() -> None:
    """A script whose docstring shows a command has a main, and calls it: without the call it ends
    silently.
    """
    scripts = []
    for path in (ROOT / "benchmarks").glob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if f"python benchmarks/{path.name}" in docstring:
            scripts.append(path)
    assert len(scripts) >= 8
    for path in scripts:
        *_, last = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(last, ast.If), f"{path.name} does not end by calling main"
        assert ast.unparse(last) == "if __name__ == '__main__':\n    main()"


def _start_a_server() -> None:
    with http_receiver():
        pass


def test_what_starts_something_is_told_from_what_does_not() -> None:
    """`make quick` leaves out who calls somebody who starts a server, or another process."""

    def rest() -> list[str]:
        return sorted(path.name for path in TESTS.iterdir())

    def start_by_another() -> None:
        _start_a_server()

    def start_a_process() -> None:
        subprocess.run(["true"], check=True)

    assert not names_a_starter(rest, set())
    assert names_a_starter(start_by_another, set())
    assert names_a_starter(start_a_process, set())
    assert names_a_starter(postgres_server, set())


def test_what_is_dear_is_listed_by_its_measured_cost() -> None:
    """What ran is judged anew; of what did not the list stays as it is. Every name on it is a
    function's, of a file or, a fixture's, of a conftest.py.
    """
    costs = {
        f"{OF_TEST}a::dear": 2 * DEAR_S,
        f"{OF_TEST}a::was_dear": DEAR_S / 2,
        f"{OF_FIXTURE}a::cheap": DEAR_FIXTURE_S / 2,
        f"{OF_FIXTURE}a::audited": 2 * DEAR_FIXTURE_S,
    }
    assert choose_dear({"a::was_dear", "b::did_not_run"}, costs) == [
        "a::audited",
        "a::dear",
        "b::did_not_run",
    ]
    for name in read_dear():
        file, _, function = name.partition("::")
        if (ROOT / file).is_file():
            assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name
        else:
            assert (ROOT / file).is_dir(), name
