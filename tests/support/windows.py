"""Windows of a real browser in front of the dashboard, and pictures of what they show."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from paths import ROOT
from playwright.sync_api import Browser, Page, Request

from poisonwatch.dashboards.door import Door

PICTURES = ROOT / "test-artifacts"
WAIT_MS = 60_000  # two busy cores


@contextmanager
def watched(browser: Browser, width: int, scheme: Literal["light", "dark"]) -> Iterator[Page]:
    """A page that must not open dialogs, fail in a script, or look outside."""
    wrong: list[str] = []

    def sent(request: Request) -> None:
        if (
            not re.match(r"(http://(localhost|127\.0\.0\.1):[0-9]+/|data:image/png)", request.url)
            or "/pwned.png" in request.url
        ):
            wrong.append(f"asked for {request.url}")

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on("pageerror", lambda error: wrong.append(f"script error {error}"))
    page.on("request", sent)
    yield page
    context.close()
    assert wrong == []


def picture(page: Page, name: str) -> None:
    """Keep what the page looks like; it must fit its width."""
    assert page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    ), f"{name} is wider than the window"
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def list_barriers(page: Page) -> list[str]:
    """What keeps people from using a page, by axe: findings that are more than minor, each with the
    elements that it is about.
    """
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {', '.join(str(node['target']) for node in one['nodes'])}"
        for one in found
        if one["impact"] != "minor"
    ]


def come_in(page: Page, address: str, door: Door) -> None:
    """Open the link that was printed."""
    page.goto(f"{address}/?token={door.entrance.token}")
    assert "token" not in page.url
