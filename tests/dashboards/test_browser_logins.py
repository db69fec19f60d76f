"""Coming in and going out, in a real browser.

Pictures of the pages are left in test-artifacts/.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import ME, serving
from doors import PASSWORD, with_users
from identity_provider import identity_provider
from playwright.sync_api import Browser, Page, expect
from servers import free_port
from windows import list_barriers, picture, watched

from poisonwatch.dashboards.access import Access, ProviderSettings
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.openid import BACK_PATH


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window in which nobody has come in."""
    with watched(browser, 1280, "light") as page:
        yield page


def log_in(page: Page, name: str, password: str) -> None:
    """Fill the form, and send it."""
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()


def test_nobody_sees_a_row_before_logging_in(page: Page, config: Path) -> None:
    """A wrong password leads nowhere; the right one to the page that was asked for; logging out
    ends it.
    """
    with serving(config, Access(user="ann", password="correct horse")) as address:
        page.goto(f"{address}/triage?state=all")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert "tiny" not in page.content()
        picture(page, "login")
        assert list_barriers(page) == []
        for password in ("wrong horse", "correct horse"):
            log_in(page, "Bea <i>B</i>", password)
        assert page.url == f"{address}/triage?state=all"
        expect(page.get_by_text("Bea <i>B</i> (unverified)")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        page.goto(f"{address}/release")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_a_link_of_an_alert_says_how_to_get_in(page: Page, config: Path) -> None:
    """Where nobody logs in: the token of the terminal is put in, and leads to the page."""
    door = Door(ME)
    with serving(config, door=door) as address:
        page.goto(f"{address}/triage?state=all")
        expect(page.get_by_text("poisonwatch dashboard", exact=True)).to_be_visible()
        picture(page, "token")
        assert list_barriers(page) == []
        page.get_by_label("Token").fill(door.entrance.token)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{address}/triage?state=all")
        expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_people_see_what_their_role_may_do(
    browser: Browser, page: Page, config: Path, tmp_path: Path
) -> None:
    """A viewer sees no form that decides, and no download; an admin sees who may come in."""
    access = with_users(tmp_path, Ann="viewer", Bob="reviewer", **{"Carl <b>": "admin"})
    with serving(config, access) as address:
        for name, decides, releases in (("ann", 0, 0), ("bob", 1, 0), ("carl <B>", 1, 1)):
            with watched(browser, 1280, "dark") as window:
                window.goto(f"{address}/triage?state=all")
                log_in(window, name, PASSWORD)
                window.goto(f"{address}{window.locator('a.row').first.get_attribute('href')}")
                assert min(window.locator("button[name=verdict]").count(), 1) == decides
                window.goto(f"{address}/release")
                assert window.get_by_role("link", name="Manifest alone").count() == releases
                window.get_by_role("link", name=name, exact=False).first.click()
                window.wait_for_url(f"{address}/account")
                assert window.get_by_role("cell", name="reviewer").count() == releases
                picture(window, f"account-{name[:3]}")
                assert list_barriers(window) == []
                window.get_by_label("Password now").fill(PASSWORD)
                window.get_by_label("New password", exact=True).fill("another password")
                window.get_by_label("New password, once more").fill("another password")
                window.get_by_role("button", name="Change").click()
                expect(window.get_by_text("Your password was changed")).to_be_visible()
        page.goto(address)
        log_in(page, "ann", PASSWORD)
        expect(page.get_by_role("alert")).to_be_visible()
        picture(page, "login-users")
        assert list_barriers(page) == []


def test_people_come_in_by_their_organisation_s_account(page: Page, config: Path) -> None:
    """From another site, and to the page that was asked for: the login's cookie comes with them."""
    port = free_port()
    address = f"http://localhost:{port}"
    with identity_provider(f"{address}{BACK_PATH}") as provider:
        provider.set_claims(
            "ann", email="ann@example.org", email_verified=True, groups=["poisonwatch-reviewer"]
        )
        settings = ProviderSettings(
            issuer=provider.issuer,
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            role_claim="groups",
        )
        with serving(config, Access(user="root", provider=settings), port=port):
            page.goto(f"{address}/triage?state=all")
            picture(page, "login-openid")
            assert list_barriers(page) == []
            page.get_by_role("link", name="Log in with your organisation").click()
            page.wait_for_url(f"{provider.issuer}/**")
            page.locator("input[name=sub]").fill("ann")
            page.locator("input[name=sub]").press("Enter")
            page.wait_for_url(f"{address}/triage?state=all")
            expect(page.get_by_text("ann@example.org")).to_be_visible()
