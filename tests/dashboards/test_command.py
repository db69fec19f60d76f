"""`poisonwatch dashboard`: who comes in, where it listens, and until when."""

import http.cookiejar
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from audits import write_audit
from doors import PROXY_SECRET

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.access import Access
from poisonwatch.dashboards.command import _choose_address, _make_access
from poisonwatch.dashboards.users import change_users, make_user
from poisonwatch.flows.cli.app import main

VARIABLES = (
    "POISONWATCH_DASHBOARD_PASSWORD",
    "POISONWATCH_DASHBOARD_PASSWORD_FILE",
    "POISONWATCH_DASHBOARD_PROXY_SECRET",
    "POISONWATCH_DASHBOARD_PROXY_SECRET_FILE",
    "POISONWATCH_OIDC_ISSUER",
)
LINK = re.compile(r"http://127\.0\.0\.1:[0-9]+/\?token=\S+")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def started(config: Path, *options: str) -> Iterator[tuple[str, IO[str], subprocess.Popen[str]]]:
    """The command, serving: its first line, its output, its process."""
    command = [sys.executable, "-m", "poisonwatch.flows.cli", "dashboard", str(config)]
    with subprocess.Popen(
        [*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline(), process.stdout, process
        finally:
            process.terminate()


def open_browser() -> urllib.request.OpenerDirector:
    """What keeps cookies and follows redirects."""
    return urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )


def fail(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_it_listens_here_alone_unless_somebody_asks_who_comes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere it wants users, a password or a proxy; a port that is taken is said."""
    assert fail(str(config), "--host", "0.0.0.0") == 2
    assert "POISONWATCH_DASHBOARD_PASSWORD" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert fail(str(config), "--port", str(taken.getsockname()[1])) == 1
    assert "choose another" in capsys.readouterr().err


def test_a_proxy_without_a_secret_is_no_proxy(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to set, and what the proxy must send."""
    assert fail(str(config), "--proxy-header", "Remote-User") == 2
    said = capsys.readouterr().err
    assert "POISONWATCH_DASHBOARD_PROXY_SECRET" in said
    assert "X-Poisonwatch-Proxy-Secret" in said
    assert said.count("\n") == 1
    monkeypatch.setenv("POISONWATCH_DASHBOARD_PROXY_SECRET", "hunter2")
    assert fail(str(config), "--proxy-header", "Remote-User") == 2
    assert "hunter2" not in capsys.readouterr().err


def test_the_command_prints_a_link_and_serves_until_it_is_told_to_end(config: Path) -> None:
    """Whoever has the link comes in, once; it ends with 0 on Ctrl-C, whoever has not said all of a
    form yet.
    """
    with started(config) as (line, output, process):
        (link,) = LINK.findall(line)
        browser, stranger = open_browser(), open_browser()
        with browser.open(link) as answer:
            assert b"Audits" in answer.read()
            assert "token" not in answer.url
        with stranger.open(link) as answer:
            shown = answer.read()
            assert b"Log in" in shown
            assert b"Audits" not in shown
        (another,) = LINK.findall(output.readline())
        assert another != link
        with stranger.open(another) as answer:
            assert b"Audits" in answer.read()
        port = int(link.split(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(
                b"POST /triage/undo HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 1000\r\n\r\ndone=1"
            )
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_when_it_is_told_to(config: Path, ending: signal.Signals) -> None:
    """As by docker stop, or systemd."""
    with started(config) as (line, _, process):
        assert LINK.search(line)
        process.send_signal(ending)
        assert process.wait() == 0


def test_where_people_log_in_no_link_is_printed(tmp_path: Path, tiny_folder: Path) -> None:
    """With users; the password of nobody is in the output."""
    config = write_audit(tmp_path, tiny_folder)
    with change_users(tmp_path / ".poisonwatch-users.json") as users:
        users["ann"] = make_user("ann", "viewer", "correct horse")
    with started(config) as (line, _, _):
        assert "token" not in line
        (address,) = re.findall(r"http://127\.0\.0\.1:[0-9]+/", line)
        with urllib.request.urlopen(address) as answer:
            assert b'name="password"' in answer.read()


def make_access(config: Path, proxy_header: str | None = None) -> Access:
    return _make_access(
        load_config(config),
        config,
        proxies=(),
        names=["audits.example.org"],
        read_only=False,
        proxy_header=proxy_header,
    )


def test_the_environment_says_who_comes_in(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets by variables or files, users by their file beside the audit file."""
    config = write_audit(tmp_path, tiny_folder)
    assert make_access(config).is_local
    (tmp_path / "secret").write_text("a: /@#? secret\n")
    monkeypatch.setenv("POISONWATCH_DASHBOARD_PASSWORD_FILE", str(tmp_path / "secret"))
    assert make_access(config).password == "a: /@#? secret"
    monkeypatch.delenv("POISONWATCH_DASHBOARD_PASSWORD_FILE")
    monkeypatch.setenv("POISONWATCH_DASHBOARD_PROXY_SECRET", PROXY_SECRET)
    assert make_access(config).proxy_secret is None
    assert make_access(config, proxy_header="Remote-User").proxy_secret == PROXY_SECRET
    monkeypatch.setenv("POISONWATCH_OIDC_ISSUER", "https://id.example.org")
    monkeypatch.setenv("POISONWATCH_OIDC_CLIENT_ID", "poisonwatch")
    monkeypatch.setenv("POISONWATCH_OIDC_CLIENT_SECRET", "hunter2")
    monkeypatch.setenv("POISONWATCH_OIDC_ROLE_CLAIM", "groups")
    provider = make_access(config).provider
    assert provider is not None
    assert (provider.client_secret, provider.user_claim) == ("hunter2", "email")
    assert (provider.role_claim, provider.address) == ("groups", None)
    with change_users(tmp_path / ".poisonwatch-users.json") as users:
        users["ann"] = make_user("ann", "viewer", None)
    access = make_access(config)
    assert access.users == tmp_path / ".poisonwatch-users.json"
    assert access.hosts[-1] == "audits.example.org"
    (tmp_path / ".poisonwatch-users.json").chmod(0o644)
    assert fail(str(config)) == 2


@pytest.mark.parametrize(
    ("setting", "address"),
    [
        (None, "http://127.0.0.1:8765/"),
        ("http://localhost:8765", "http://localhost:8765/"),
        ("http://localhost:8765/", "http://localhost:8765/"),
        ("http://localhost:9000", "http://127.0.0.1:8765/"),
        ("http://[x", "http://127.0.0.1:8765/"),
        ("http://localhost:99999", "http://127.0.0.1:8765/"),
        ("https://audits.example.org", "http://127.0.0.1:8765/"),
    ],
)
def test_the_link_has_the_name_that_alerts_link_to(
    tmp_path: Path, tiny_folder: Path, setting: str | None, address: str
) -> None:
    """Where that leads here: the cookie of 127.0.0.1 is none of localhost."""
    config = load_config(write_audit(tmp_path, tiny_folder))
    assert (
        _choose_address(config.model_copy(update={"dashboard": setting}), "127.0.0.1", 8765)
        == address
    )
