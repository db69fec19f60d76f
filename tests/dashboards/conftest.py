"""One audit, and one browser, for all pages of the dashboard."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from browsing import asking, audit_of
from playwright.sync_api import Browser, sync_playwright
from starlette.testclient import TestClient

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return audit_of(tmp_path_factory.mktemp("audited"), tiny_folder)


@pytest.fixture(scope="module", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    """Hashing a password takes a fifth of a second, as it should (test_users_command.py), and tests
    log in hundreds of times: here it takes next to nothing.
    """
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poisonwatch.dashboards.users._get_hasher", lambda: cheap)
        yield


@pytest.fixture
def client(config: Path) -> Iterator[TestClient]:
    with asking(config) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail(
                "Chromium is not installed: nobody would notice that the dashboard is not tested"
            )
        pytest.skip("Chromium is not installed (Debian package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
