"""What is installed is what was tested: every package at its pinned version, every file by its hash;
and what a release consists of is told.
"""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import version as find_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from paths import ROOT

LOCKS = ("development.txt", "service.txt", "torch.txt", "torch-cuda.txt")
LOCK_SCRIPT = ROOT / "requirements" / "make_lock.py"
NEWEST_SCRIPT = ROOT / "requirements" / "try_newest.py"


def read_pins(text: str) -> dict[str, str]:
    """Version by canonical name of the lines NAME==VERSION."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def read_lock(file: str) -> dict[str, str]:
    return read_pins((ROOT / "requirements" / file).read_text(encoding="utf-8"))


def list_wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, its own extras resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts, wanted = list(project["dependencies"]), []
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for requirement in map(Requirement, texts):
        if requirement.name != project["name"]:
            wanted.append(requirement)
            continue
        for extra in requirement.extras:
            wanted += map(Requirement, project["optional-dependencies"][extra])
    return wanted


@pytest.mark.parametrize("file", LOCKS)
def test_every_file_has_a_hash_and_no_index_is_named(file: str) -> None:
    """With --require-hashes pip takes nothing else; where it comes from is each one's own setting."""
    text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    hashes = [re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries]
    assert all(hashes)
    assert len(entries) == len(read_lock(file))
    assert "//" not in text


@pytest.mark.parametrize("file", LOCKS)
def test_the_lock_has_the_versions_of_the_constraints(file: str) -> None:
    """One source of truth: after a change of constraints.txt, `make lock`."""
    pinned = read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    locked = read_lock(file)
    assert locked
    differing = {
        name: (version, pinned[name])
        for name, version in locked.items()
        if name in pinned and version != pinned[name]
    }
    assert differing == {}


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("development.txt", ("dev",)),
        ("service.txt", ("adapters", "dashboard", "gcs", "languages", "oidc", "postgres", "s3")),
    ],
)
def test_the_lock_holds_what_the_project_asks_for(file: str, extras: tuple[str, ...]) -> None:
    """After a change of pyproject.toml, `make lock`."""
    locked = read_lock(file) | read_lock("torch.txt")
    wanted = list_wanted(*extras)
    assert len(wanted) > 30
    missing = [
        str(requirement)
        for requirement in wanted
        if not requirement.specifier.contains(
            locked.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert missing == []


def test_the_lock_is_whole() -> None:
    """Every package that an installed one of the lock needs here is in the lock: pip is told not to
    look for any itself.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pip", "inspect", "--local"],
        capture_output=True,
        text=True,
        check=True,
    )
    installed = {
        canonicalize_name(entry["metadata"]["name"]): entry["metadata"]
        for entry in json.loads(done.stdout)["installed"]
    }
    locked = read_lock("development.txt") | read_lock("torch.txt")
    checked, missing = 0, []
    for name in locked.keys() & installed.keys():
        for text in installed[name].get("requires_dist", ()):
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            checked += 1
            if canonicalize_name(requirement.name) not in locked:
                missing.append(f"{name} needs {requirement.name}")
    assert checked > 500
    assert missing == []


def test_what_slows_every_process_is_not_installed() -> None:
    """jsonschema, which Prefect imports, would build its grammar each time."""
    left_out = runpy.run_path(str(LOCK_SCRIPT))["LEFT_OUT"]
    assert left_out in read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert [file for file in LOCKS if left_out in read_lock(file)] == []


def test_the_newest_versions_are_allowed_and_none_is_older_than_the_pinned() -> None:
    """What `make newest` wrote holds what the project asks for, at versions that it allows."""
    newest = read_lock("newest.txt")
    pinned = read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for requirement in list_wanted("dev"):
        if requirement.name == "poisonwatch":
            continue
        found = newest[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(found, prereleases=True), requirement
        assert Version(found) >= Version(pinned[canonicalize_name(requirement.name)]), requirement
    left_out = runpy.run_path(str(NEWEST_SCRIPT))["LEFT_OUT"]
    assert left_out == runpy.run_path(str(LOCK_SCRIPT))["LEFT_OUT"]
    assert left_out not in newest


def test_what_is_newer_than_installed_is_tried_on_this_platform_alone() -> None:
    """PyTorch stays, and what a marker leaves out is left out."""
    list_changes = runpy.run_path(str(NEWEST_SCRIPT))["list_changes"]
    here = find_version("prefect")
    text = f"prefect=={here}\ntorch==99.0\nnvidia-curand==1.0 ; sys_platform == 'linux'\n"
    text += "mlflow==99.0\nnone-such==1.0 ; sys_platform == 'win32'\nnone-such-here==2.0\n"
    assert list_changes(text) == {
        "mlflow": (find_version("mlflow"), "99.0"),
        "none-such-here": (None, "2.0"),
    }


def test_what_breaks_is_one_line_a_failure() -> None:
    """With the beginning of its error, whether it failed or could not be run."""
    list_failures = runpy.run_path(str(NEWEST_SCRIPT))["list_failures"]
    told = ElementTree.fromstring(
        "<suite><testcase classname='tests.a' name='passes'/>"
        f"<testcase classname='tests.a' name='fails'><failure message='one&#10;{'x' * 999}'/></testcase>"
        "<testcase classname='tests.b' name='errs'><error>no import</error></testcase></suite>"
    )
    lines = list_failures(list(told.iter("testcase")))
    assert lines[0].startswith("tests.a.fails: one xxx")
    assert len(lines[0]) < 200
    assert lines[1:] == ["tests.b.errs: no import"]


def test_pytorch_without_cuda_is_in_the_lock() -> None:
    """Its hash stands at no package index, so the script knows it."""
    script = runpy.run_path(str(LOCK_SCRIPT))
    text = (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8")
    (pin,) = re.findall(r"^torch==\S+", text, flags=re.MULTILINE)
    assert script["CPU_BUILDS"][pin]
    assert all(f"--hash=sha256:{digest}" in text for digest in script["CPU_BUILDS"][pin])
    with pytest.raises(KeyError):
        script["add_cpu_builds"]("torch==0.0.1 \\\n    --hash=sha256:00\n")


def test_a_package_without_a_hash_is_not_written(tmp_path: Path) -> None:
    """Nothing of the file is: pip would install none of it."""
    script = runpy.run_path(str(LOCK_SCRIPT))
    script["write_lock"].__globals__["FOLDER"] = tmp_path
    text = "one==1 \\\n    --hash=sha256:00\ntwo==2\n"
    entries = script["split_entries"](text)
    assert list(entries) == ["one", "two"]
    with pytest.raises(ValueError, match="two==2"):
        script["write_lock"]("lock.txt", list(entries.values()))
    assert not (tmp_path / "lock.txt").exists()


def test_a_changed_file_is_not_installed(tmp_path: Path) -> None:
    """pip compares what it got with the lock: real pip, a real wheel, one byte changed."""
    wheel = tmp_path / "small-1-py3-none-any.whl"
    make_wheel(wheel)
    digest = subprocess.run(
        [sys.executable, "-m", "pip", "hash", str(wheel)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[-1]
    lock = tmp_path / "lock.txt"
    lock.write_text(f"small==1 {digest}\n")
    assert install(lock, tmp_path) == 0
    with wheel.open("ab") as file:
        file.write(b"\0")
    assert install(lock, tmp_path) == 1


def make_wheel(path: Path) -> None:
    """A wheel of one empty module."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small.py", "")
        archive.writestr(
            "small-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1\n"
        )
        archive.writestr(
            "small-1.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("small-1.dist-info/RECORD", "")


def install(lock: Path, folder: Path) -> int:
    """The options of the Makefile, from a folder alone; how pip ended."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
    command += ["--require-hashes", "--no-index", "--find-links", str(folder)]
    command += ["--target", str(folder / "site"), "--upgrade", "--requirement", str(lock)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make sbom` writes."""
    out = tmp_path_factory.mktemp("sbom") / "bill.json"
    command = ["make", "sbom", "--assume-old=.venv/.installed", f"SBOM={out}"]
    command.append(f"BIN={Path(sys.executable).parent}")
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_the_bill_of_materials_names_every_pinned_package(bill: dict[str, Any]) -> None:
    """CycloneDX: each with its version, an address that scanners know, and the hashes of its files."""
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "poisonwatch"
    named = {canonicalize_name(part["name"]): part["version"] for part in bill["components"]}
    assert named == read_lock("service.txt") | read_lock("torch.txt")
    for part in bill["components"]:
        assert part["purl"].startswith(f"pkg:pypi/{canonicalize_name(part['name'])}@")
        assert any(place.get("hashes") for place in part["externalReferences"])


def test_what_make_starts_keeps_what_python_compiles() -> None:
    """Where the environment forbids it, too: else each process compiles 7,000 modules anew."""
    command = ["make", "--no-print-directory"]  # what a make within a make says otherwise
    command += ["--eval", "kept: ; @printenv PYTHONDONTWRITEBYTECODE", "kept"]
    forbidden = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=forbidden, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_what_is_compiled_ahead_is_installed() -> None:
    """compileall passes over a folder that is not there, and says nothing."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    packages = re.findall(r"^COMPILED := (.*)$", makefile, flags=re.MULTILINE)[0].split()
    assert len(packages) >= 10
    assert [name for name in packages if find_spec(name) is None] == []
