"""Containers: secrets come from files, nothing in them can be written or gained."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from paths import ROOT
from sqlalchemy import make_url

DEPLOYMENTS = ROOT / "deployments"
PASSWORD = "p/w:@#?%41 ${HOME} ä'\""


def start(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a container does first, with the folder in place of /run/secrets."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    environment["SECRETS_FOLDER"] = str(folder)
    return subprocess.run(
        [sys.executable, str(DEPLOYMENTS / "entrypoint.py"), *command],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def show(variable: str) -> tuple[str, ...]:
    return sys.executable, "-c", f"import os; print(os.environ[{variable!r}])"


def test_a_secret_comes_from_its_file(tmp_path: Path) -> None:
    """NAME is what the file of NAME_FILE holds, whatever it is, less the line break at its end."""
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    done = start(tmp_path, *show("DB_PASSWORD"), DB_PASSWORD_FILE=str(tmp_path / "secret"))
    assert (done.returncode, done.stdout) == (0, PASSWORD + "\n")
    code = "import os; print('DB_PASSWORD_FILE' in os.environ)"
    file = str(tmp_path / "secret")
    done = start(tmp_path, sys.executable, "-c", code, DB_PASSWORD_FILE=file)
    assert done.stdout == "False\n"


def test_a_password_is_quoted_into_a_url(tmp_path: Path) -> None:
    """The URL's password is the secret, and its host is the host."""
    (tmp_path / "secret").write_text(PASSWORD)
    done = start(
        tmp_path,
        *show("URI"),
        DB_PASSWORD_FILE=str(tmp_path / "secret"),
        URI="postgresql+psycopg://ann:${DB_PASSWORD}@db/mlflow",
    )
    url = make_url(done.stdout.rstrip("\n"))
    assert (url.host, url.database, url.username) == ("db", "mlflow", "ann")
    assert url.password == PASSWORD


def test_other_files_and_variables_are_left_alone(tmp_path: Path) -> None:
    """SSL_CERT_FILE names no secret; ${OTHER} is the command's own."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "cert.pem").write_text("a certificate")
    code = "import os; print(os.environ['TEXT'], 'SSL_CERT' in os.environ)"
    done = start(
        tmp_path / "secrets",
        sys.executable,
        "-c",
        code,
        SSL_CERT_FILE=str(tmp_path / "cert.pem"),
        TEXT="${OTHER}",
    )
    assert done.stdout == "${OTHER} False\n", done.stderr


def test_a_secret_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """The command does not start."""
    for variables in (
        {"DB_PASSWORD_FILE": str(tmp_path / "nothing")},
        {"DB_PASSWORD_FILE": str(tmp_path / "secret"), "DB_PASSWORD": "set-too"},
    ):
        (tmp_path / "secret").write_text(PASSWORD)
        done = start(tmp_path, *show("PATH"), **variables)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
        assert PASSWORD not in done.stderr
        assert "set-too" not in done.stderr
    assert start(tmp_path).returncode == 1


def test_no_service_of_the_compose_file_can_change_itself() -> None:
    """Read-only root, no capabilities, no new privileges, no root; secrets are files that the
    service is handed.
    """
    compose = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    assert compose["services"]
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] not in ("root", "0", "0:0"), name
        assert service["tmpfs"], name
        handed = {f"/run/secrets/{secret}" for secret in service["secrets"]}
        wanted = {value for key, value in service["environment"].items() if key.endswith("_FILE")}
        assert wanted == handed, name
    assert compose["networks"]["database"]["internal"] is True
    assert set(compose["secrets"]) == {"postgres_password", "dashboard_password"}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "deployments/secrets/" in ignored


def test_no_password_is_on_a_command_line() -> None:
    """Of a service, a health check or a deployment: a list of processes shows these to everybody."""
    compose = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    lines = [str(service.get("command")) for service in compose["services"].values()]
    lines += [str(service["healthcheck"]["test"]) for service in compose["services"].values() if "healthcheck" in service]  # fmt: skip
    assert len(lines) >= 8
    assert not [line for line in lines if re.search(r"password|\$\{|://[^/]*@", line.lower())]


def test_the_container_runs_as_nobody_in_particular() -> None:
    """The last user is not root; what is written lies in volumes; what is installed has a hash."""
    text = (DEPLOYMENTS / "Containerfile").read_text()
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 10001"
    assert 'VOLUME ["/cache", "/data"]' in lines
    installed = [line for line in lines if line.startswith("RUN pip install")]
    assert len(installed) == 3
    assert all("--no-deps" in line for line in installed)
    assert sum("--require-hashes" in line for line in installed) == 2
    assert "--no-build-isolation" in installed[-1]


def test_a_container_is_healthy_while_its_audits_come(tmp_path: Path) -> None:
    """The health check of `watch`, and the image's own, ask `poisonwatch status`, with the secrets
    that the audit file names.
    """
    compose = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    kind, python, entrypoint, *command = compose["services"]["watch"]["healthcheck"]["test"]
    image = (DEPLOYMENTS / "Containerfile").read_text()
    assert (kind, python) == ("CMD", "python")
    assert f'ENTRYPOINT ["python", "{entrypoint}"]' in image
    own = re.search(r"^HEALTHCHECK .*\\\n    CMD (.*)$", image, flags=re.MULTILINE)
    assert own is not None
    assert f"python {entrypoint} {' '.join(command[:-1])}" in own[1]
    (tmp_path / "password").write_text("hunter2")
    audit = tmp_path / "audit.yaml"
    audit.write_text(
        "{source: rows.jsonl, sentinels: s.yaml, state: 'postgresql://a:${DB_PASSWORD}@127.0.0.1:9/x'}"
    )
    run = [sys.executable, "-m", "poisonwatch.flows.cli", *command[1:-1], str(audit)]
    done = start(tmp_path, *run, DB_PASSWORD_FILE=str(tmp_path / "password"))
    assert done.returncode == 1, done.stderr
    assert "the ledger at postgresql://" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_only_what_the_image_holds_is_sent_to_its_builder() -> None:
    """Everything is left out but the paths that the Containerfile copies."""
    lines = (DEPLOYMENTS / "Containerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    kept = {line[1:].split("/*")[0] for line in lines if line.startswith("!")}
    copied = {
        path
        for line in (DEPLOYMENTS / "Containerfile").read_text().splitlines()
        if line.startswith("COPY")
        for path in line.split()[1:-1]
    }
    assert kept == copied
    assert all((ROOT / path).exists() for path in copied)
