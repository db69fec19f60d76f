"""Who may import whom, and what the package is made of."""

import ast
from pathlib import Path

import pytest
from paths import ROOT

import poisonwatch

LAYERS = ("poisonwatch", "tasks", "flows", "dashboards")
FORBIDDEN = {
    "poisonwatch": {"prefect", "mlflow", "great_expectations", "streamlit", "fastapi", "flask"},
    "tasks": {"poisonwatch.flows", "poisonwatch.dashboards"},
    "flows": {"poisonwatch.dashboards"},
    "dashboards": {
        "poisonwatch.flows",
        "poisonwatch.tasks",
        "prefect",
        "mlflow",
        "great_expectations",
    },
}
ABOVE = {"poisonwatch.tasks", "poisonwatch.flows", "poisonwatch.dashboards"}
FILES = [(layer, path) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
FEWEST = {
    "poisonwatch": 91,
    "tasks": 5,
    "flows": 12,
    "dashboards": 9,
}  # files; a guard that sees fewer sleeps


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize(("layer", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_no_module_imports_upwards(layer: str, path: Path) -> None:
    """flows -> tasks -> poisonwatch, dashboards -> poisonwatch."""
    banned = FORBIDDEN[layer] | (ABOVE if layer == "poisonwatch" else set())
    if "integrations" in path.parts:
        return  # the tasks among them move on with the next commit
    wrong = [
        name
        for name in imports(path)
        for ban in banned
        if name == ban or name.startswith(f"{ban}.")
    ]
    assert not wrong
    assert not {
        name for name in imports(path) if name.split(".")[0] in ("tasks", "flows", "dashboards")
    }


def test_the_guards_see_every_folder() -> None:
    """As many modules are looked at as there are, in sub-packages too."""
    for layer in LAYERS:
        assert sum(of == layer for of, _ in FILES) >= FEWEST[layer]


def test_folders_live_under_the_one_import_name() -> None:
    """poisonwatch/{tasks,flows,dashboards} are the top-level folders themselves."""
    for name in ("tasks", "flows", "dashboards"):
        assert (ROOT / "poisonwatch" / name).is_symlink()
        assert (ROOT / "poisonwatch" / name).resolve() == ROOT / name


def test_public_names_are_few_and_importable() -> None:
    """At most eight names, each of which exists."""
    assert len(poisonwatch.__all__) <= 8
    assert all(getattr(poisonwatch, name) is not None for name in poisonwatch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        poisonwatch.nothing  # noqa: B018


def test_tests_mirror_the_packages() -> None:
    """tests/<package>/test_<module>.py for each file of the library."""
    shown_elsewhere = {"__init__", "errors", "finding", "gate", "influence", "progress"}
    shown_elsewhere |= {
        "artifacts",
        "html_validation_report",
        "overview_trend",
        "runs_tracked",
        "upload",
    }
    paths = [
        path
        for path in (ROOT / "poisonwatch").rglob("*.py")
        if "migrations" not in path.parts and path.stem not in shown_elsewhere
    ]
    assert len(paths) >= 90
    library = ROOT / "poisonwatch"
    wanted = {
        path: ROOT / "tests" / path.relative_to(library).with_name(f"test_{path.name}")
        for path in paths
    }
    assert [str(path.relative_to(ROOT)) for path, test in wanted.items() if not test.exists()] == []


def test_every_script_that_a_benchmark_names_runs() -> None:
    """A script whose docstring shows a command has a main, and calls it: without the call it ends
    silently.
    """
    scripts = [
        path
        for path in (ROOT / "benchmarks").glob("*.py")
        if f"python benchmarks/{path.name}"
        in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]
    assert len(scripts) >= 8
    for path in scripts:
        *_, last = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(last, ast.If), f"{path.name} does not end by calling main"
        assert ast.unparse(last) == "if __name__ == '__main__':\n    main()"
