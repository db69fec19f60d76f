"""The wheel holds every module and data file, and works where it is installed."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

from poisonwatch.sentinels.pack import list_packs

SHIPPED = {".css", ".j2", ".js", ".jsonl", ".mako", ".py", ".svg", ".yaml"}

FIRST_STAGE = """
from pathlib import Path
import poisonwatch
assert Path(poisonwatch.__file__).is_relative_to({site!r}), poisonwatch.__file__
from poisonwatch.config_file import load_config
from poisonwatch.datasets.demo import write_demo
from poisonwatch.flows.cli.app import app
from poisonwatch.reports.html import render_report
from poisonwatch.sentinels.pack import list_packs
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.progress import silent
from poisonwatch.tasks.data import pull
config = load_config(write_demo(Path("demo")))
with Ledger.at(config.state) as ledger:
    print(pull.fn(ledger, config, silent).new)
print(len(load_sentinels(config.sentinels)), *list_packs())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without isolation: what builds it is installed, and no index is asked."""
    out = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    """Each file of the four folders, under the one import name."""
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "poisonwatch").rglob("*")
        if path.suffix in SHIPPED
    }
    for folder in ("tasks", "flows", "dashboards"):
        shipped = (path for path in (ROOT / folder).rglob("*") if path.suffix in SHIPPED)
        expected |= {f"poisonwatch/{path.relative_to(ROOT).as_posix()}" for path in shipped}
    assert len(expected) >= 150, f"only {len(expected)} files were looked for"
    assert expected | {"poisonwatch/py.typed"} <= held
    assert not [
        name for name in held if name.startswith(("tests/", "benchmarks/", "flows/", "tasks/"))
    ]


def test_the_demo_starts_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own, away from the checkout, the demo is written and its
    first stage pulls the rows.
    """
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    dependencies = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(
        dependencies + "\n"
    )  # the packages that Poisonwatch needs, but not its checkout
    code = FIRST_STAGE.format(site=str(site))
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["384", "24", *list_packs()]
