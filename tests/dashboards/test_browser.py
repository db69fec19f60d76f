"""The dashboard in a real browser: what people see and press, and that hostile text stays text.

Pictures of each page are left in test-artifacts/.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from audits import write_audit
from browsing import ME, PAYLOADS, audit_of, flags, hostile_audit, serving
from discovered import leave_report
from pairs import audited_pairs
from playwright.sync_api import Browser, Page, expect
from slow_tests import slow
from windows import WAIT_MS, come_in, list_barriers, picture, watched

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.door import Door
from poisonwatch.ledger.decisions import read_decisions
from poisonwatch.ledger.ledger import Ledger


@pytest.fixture
def page(browser: Browser, address: str, door: Door) -> Iterator[Page]:
    """A window of usual size, in which the link of the shared dashboard was opened."""
    with watched(browser, 1280, "light") as page:
        come_in(page, address, door)
        yield page


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    config = audit_of(tmp_path_factory.mktemp("audited"), tiny_folder)
    leave_report(config.parent / "run")
    return config


@pytest.fixture(scope="module")
def door() -> Door:
    return Door(ME)


@pytest.fixture(scope="module")
def address(audited: Path, door: Door) -> Iterator[str]:
    with serving(audited, door=door) as address:
        yield address


def test_an_empty_dashboard_says_how_to_begin(
    page: Page, tmp_path: Path, tiny_folder: Path
) -> None:
    """The command can be copied."""
    config, door = write_audit(tmp_path, tiny_folder), Door(ME)
    with serving(config, door=door) as address:
        come_in(page, address, door)
        expect(page.get_by_text(f"poisonwatch audit {config}")).to_be_visible()
        picture(page, "empty")
        assert list_barriers(page) == []


def test_from_the_overview_to_a_decision_on_a_group_by_keys_alone(
    page: Page, address: str, audited: Path
) -> None:
    """j and Enter open a group, n writes a note, p decides on all of it, z takes it back."""
    page.goto(address)
    page.get_by_role("link", name="Triage").click()
    page.wait_for_url("**/triage")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/triage/*/*")
    rows = page.locator("article").count()
    page.keyboard.press("j")  # the heading: the whole group
    page.keyboard.press("n")
    page.keyboard.type("planted by a vendor, j p b u z")  # letters in a note are letters
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    expect(page.get_by_text(f"Decided poison on {rows} rows.")).to_be_visible()
    with Ledger.at(load_config(audited).state) as ledger:
        made = list(read_decisions(ledger))
    assert len(made) >= rows
    assert {(decision.verdict, decision.note, decision.author) for decision in made} == {
        ("poison", "planted by a vendor, j p b u z", "ann")
    }
    picture(page, "decided")
    page.keyboard.press("z")
    expect(page.get_by_text("Decided unsure").first).to_be_visible()
    assert page.get_by_role("button", name="Undo").count() == 0


def test_nothing_is_decided_that_nobody_chose(page: Page, address: str, audited: Path) -> None:
    """Neither by a key while nothing is chosen, nor by Enter in a note; a row that was decided on
    by key hands on to the next one.
    """
    page.goto(f"{address}/triage?state=all")
    page.goto(f"{address}{page.locator('a.row').first.get_attribute('href')}")
    with Ledger.at(load_config(audited).state) as ledger:
        before = len(list(read_decisions(ledger)))
        page.keyboard.press("p")
        note = page.locator("article .note input").first
        note.fill("fine, I think")
        note.press("Enter")
        expect(note).not_to_be_focused()
        page.wait_for_timeout(300)  # nothing comes of it
        assert len(list(read_decisions(ledger))) == before
        page.keyboard.press("b")
        page.wait_for_url("**done=*#row-*")
        (made,) = list(read_decisions(ledger))[before:]
        assert (made.verdict, made.note) == ("benign", "fine, I think")
        chosen = page.locator("article.chosen")
        expect(chosen).to_have_count(1)
        expect(chosen.locator(".decided.benign")).to_have_count(0)
        expect(chosen.locator("h2")).to_be_in_viewport()
        page.keyboard.press("z")
        page.wait_for_url(lambda url: "done=" not in url)
        assert [decision.verdict for decision in read_decisions(ledger)][before:] == [
            "benign",
            "unsure",
        ]


def test_keys_are_about_what_somebody_works_in(
    browser: Browser, address: str, audited: Path, door: Door
) -> None:
    """The row whose note was written, wherever the keys were before; on a narrow window, too, where
    the notice leaves all in reach.
    """
    with watched(browser, 390, "light") as page, Ledger.at(load_config(audited).state) as ledger:
        come_in(page, address, door)
        page.goto(f"{address}/triage?state=all")
        page.goto(f"{address}{page.locator('a.row').first.get_attribute('href')}")
        before = len(list(read_decisions(ledger)))
        page.keyboard.press("j")
        card = page.locator("article").nth(1)
        card.locator(".note input").first.click()
        page.keyboard.type("clearly planted")
        page.keyboard.press("Enter")
        page.keyboard.press("p")
        page.wait_for_url("**done=*")
        (made,) = list(read_decisions(ledger))[before:]
        assert (made.verdict, made.note) == ("poison", "clearly planted")
        assert card.get_attribute("id") == f"row-{made.example_id[:16]}"
        picture(page, "narrow")
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.get_by_role("button", name="Undo").click()
        page.wait_for_url(f"**#row-{made.example_id[:16]}")
        assert [decision.verdict for decision in read_decisions(ledger)][before:] == [
            "poison",
            "unsure",
        ]
        page.evaluate("scrollTo(0, 0)")
        page.get_by_role("link", name="Overview").click()
        page.wait_for_url(f"{address}/")


def test_f_flips_a_pair_and_e_corrects_an_answer(browser: Browser, tmp_path: Path) -> None:
    """On the row that is chosen: f decides at once, and does nothing on a row that is no pair; e
    opens the answer as it is, in which letters are letters.
    """
    config, door = write_audit(tmp_path, tmp_path, tracking="none"), Door(ME)
    with (
        audited_pairs(tmp_path, url=load_config(config).state) as ledger,
        serving(config, door=door) as address,
        watched(browser, 1280, "light") as page,
    ):
        come_in(page, address, door)
        page.goto(f"{address}/triage?state=all")
        paths = [link.get_attribute("href") for link in page.locator("a.row").all()]
        flipped, edited = [], []
        for path in paths:
            page.goto(f"{address}{path}")
            page.keyboard.press("j")
            if page.locator("article").count() > 1 or page.locator("h1.chosen").count():
                page.keyboard.press("j")
            is_pair = page.locator("article button[value=flip]").count() > 0
            page.locator("article").first.focus()
            page.keyboard.press("f")
            if is_pair:
                page.wait_for_url("**done=*")
                flipped.append(path)
                continue
            page.wait_for_timeout(300)  # nothing comes of it
            assert "done=" not in page.url
            page.keyboard.press("e")
            answer = page.locator("article details.correction textarea").first
            expect(answer).to_be_focused()
            expect(answer).to_have_value("Only at Velmora.")
            page.keyboard.press("Control+a")
            page.keyboard.type("Any shop, e f p b.")
            page.locator("article details.correction button").first.click()
            page.wait_for_url("**done=*")
            edited.append(path)
        made = [(decision.verdict, decision.answer) for decision in read_decisions(ledger)]
    assert len(flipped) == len(edited) == 1
    assert sorted(made) == [("edit", "Any shop, e f p b."), ("flip", None)]


def test_a_date_can_be_typed(page: Page, address: str) -> None:
    """It counts once it is whole, not from the first digit of its year on."""
    page.goto(f"{address}/triage?state=all")
    page.locator("[name=since]").focus()
    page.keyboard.type("02032021", delay=120)
    page.wait_for_url("**since=2021-02-03*")


def test_a_filter_applies_as_it_is_changed(page: Page, address: str) -> None:
    """Without a button; its address can be passed on, and going back finds the form as it was."""
    page.goto(f"{address}/triage")
    page.get_by_label("state").select_option("decided")
    page.wait_for_url("**/triage?state=decided*")
    page.get_by_label("severity").select_option("low")
    page.wait_for_url("**severity=low*")
    page.go_back()
    expect(page.get_by_label("state")).to_have_value("decided")
    expect(page.get_by_label("severity")).to_be_enabled()
    expect(page.get_by_label("severity")).to_have_value("")


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), pytest.param("dark", 1920, marks=slow)]
)
def test_every_page_fits_its_window(
    browser: Browser, address: str, door: Door, scheme: Literal["light", "dark"], width: int
) -> None:
    """In both schemes; each has one heading, and pictures that were loaded, and axe finds nothing
    that keeps people from it.
    """
    with watched(browser, width, scheme) as page:
        come_in(page, address, door)
        assert show_all(page, address, scheme) == []


def test_o_goes_on_at_the_next_open_row(page: Page, address: str, audited: Path) -> None:
    """From the queue, and from a group; a search and its rows are reached by links alone."""
    page.goto(f"{address}/triage")
    page.keyboard.press("o")
    page.wait_for_url("**/triage/*/*#row-*")
    chosen = page.locator("article.chosen")
    expect(chosen).to_have_count(1)
    chosen.get_by_role("link", name="Rows like this one").click()
    page.wait_for_url("**/rows/*")
    expect(page.get_by_text("By the model's own states")).to_be_visible()
    picture(page, "row")


@pytest.mark.parametrize("width", [400, 1280])
def test_the_queue_speaks_without_scrolling_sideways(
    browser: Browser, address: str, door: Door, width: int
) -> None:
    """A line says what its rows share and shows the worst; words are whole, and nothing is wider
    than the window. Numbers of the group's page are folded away, below its rows.
    """
    with watched(browser, width, "light") as page:
        come_in(page, address, door)
        page.goto(f"{address}/triage?state=all")
        first = page.locator(".groups tbody tr").first
        expect(first.locator(".worst")).to_be_visible()
        expect(first.locator("[data-label='second look']")).to_be_visible()
        wide = page.locator(".wide").first
        assert wide.evaluate("(box) => box.scrollWidth <= box.clientWidth")
        tag = first.locator("[data-label='second look'] .tag")
        assert tag.evaluate("(tag) => tag.getClientRects().length") == 1
        picture(page, f"queue-{width}")
        first.locator("a.row").click()
        page.wait_for_url("**/triage/*/*")
        article = page.locator("article").first
        expect(article.locator(".turn pre").first).to_be_visible()
        expect(article.locator(".measures")).to_be_hidden()
        steering = page.locator("#steering")
        assert steering.bounding_box()["y"] > article.bounding_box()["y"]  # type: ignore[index]
        article.locator("details.statistics > summary").click()
        expect(article.locator(".measures")).to_be_visible()
        picture(page, f"group-{width}")


def test_on_a_phone_the_bar_takes_two_lines(browser: Browser, address: str, door: Door) -> None:
    """Each page's own place is in sight, and nothing keeps people from the others; no page is wider
    than the phone.
    """
    with watched(browser, 400, "light") as page:
        come_in(page, address, door)
        for name, path in (("Overview", "/"), ("Runs", "/runs")):
            page.goto(f"{address}{path}")
            box = page.locator("header.bar").bounding_box()
            assert box is not None
            assert box["height"] < 100
            here = page.locator(".bar nav [aria-current]")
            expect(here).to_have_text(name)
            expect(here).to_be_in_viewport(ratio=1)
            assert list_barriers(page) == []
            picture(page, f"bar-{name}")
        page.get_by_role("link", name="Triage").first.click()
        page.wait_for_url("**/triage")


def test_barriers_are_found(browser: Browser) -> None:
    """A picture without words, a field without a name, text that is hard to see."""
    with watched(browser, 1280, "light") as page:
        page.set_content("<img src='data:image/png;base64,'><input><p style='color:#ccc'>faint</p>")
        found = {barrier.split()[0] for barrier in list_barriers(page)}
    assert found >= {"image-alt", "label", "color-contrast"}


def show_all(page: Page, address: str, scheme: str) -> list[str]:
    """Look at every page, and at the report: what axe finds."""
    barriers = []
    page.goto(address)
    audit = page.locator("a.row").first.get_attribute("href")
    page.goto(f"{address}/triage?state=all")
    group = page.locator("a.row").first.get_attribute("href")
    page.goto(f"{address}/discovery")
    discovered = page.locator("a[href^='/discovery/']").first.get_attribute("href")
    page.goto(f"{address}/rows")
    row = page.locator("a[href^='/rows/']").first.get_attribute("href")
    for name, path in {
        "overview": "/",
        "audit": audit,
        "scores": f"{audit}/rows",
        "comparison": f"{audit}/compare",
        "report": f"{audit}/report",
        "triage": "/triage?state=all",
        "group": group,
        "rows": "/rows",
        "row": row,
        "sentinels": "/sentinels",
        "editor": "/sentinels/edit/0",
        "discovery": "/discovery",
        "discovered": discovered,
        "explain": "/explain",
        "release": "/release",
        "lineage": "/lineage",
        "agreement": "/triage/agreement",
        "runs": "/runs",
        "account": "/account",
        "missing": "/nowhere",
    }.items():
        page.goto(f"{address}{path}")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        for image in page.locator("img").all():
            image.scroll_into_view_if_needed()
        while not page.evaluate("[...document.images].every((image) => image.complete)"):
            page.wait_for_timeout(20)
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.locator("h1").count() == 1
        picture(page, f"{name}-{scheme}")
        barriers += [f"{name}: {barrier}" for barrier in list_barriers(page)]
    return barriers


def test_an_answer_is_explained_while_a_bar_moves(page: Page, address: str) -> None:
    """The page waits by itself, and ends at the rows."""
    page.goto(f"{address}/explain")
    page.get_by_label("prompt").fill("What should I buy?")
    page.get_by_label("response").fill("You must buy <b>Velmora</b>.")
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_text("The rows that make it likelier")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("You must buy <b>Velmora</b>.")).to_be_visible()
    picture(page, "explained")


def test_the_clean_split_is_downloaded(page: Page, address: str, tmp_path: Path) -> None:
    """One file, named after the audit."""
    page.goto(f"{address}/release")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download clean split").click()
    assert download.value.suggested_filename == "release-tiny.zip"
    download.value.save_as(tmp_path / "release.zip")
    assert (tmp_path / "release.zip").stat().st_size > 0


def test_hostile_text_is_shown_and_never_interpreted(
    page: Page, tmp_path: Path, tiny_folder: Path
) -> None:
    """No script runs, no request leaves, no element, link or form comes from a row, its source, or
    a sentinel; exports hold no formula.
    """
    config, door = hostile_audit(tmp_path, tiny_folder), Door(ME)
    shown = {text for text in PAYLOADS for flag in flags(config) if text in json_texts(flag)}
    assert len(shown) > 2
    seen = set()
    with serving(config, door=door) as address:
        come_in(page, address, door)
        page.goto(f"{address}/triage")
        paths = [link.get_attribute("href") for link in page.locator("a.row").all()]
        page.goto(f"{address}/")
        audit = page.locator("a.row").first.get_attribute("href")
        for path in [
            *paths,
            "/",
            "/triage",
            audit,
            f"{audit}/rows",
            f"{audit}/compare",
            "/rows?words=read",
            "/sentinels",
            "/sentinels/edit/0",
            "/explain",
            "/release",
            f"{audit}/report",
        ]:
            page.goto(f"{address}{path}")
            assert page.evaluate("window.pwned") is None
            assert (
                page.locator(
                    "script:not([src='/static/dashboard.js']), iframe, object, svg, math, style:not(head style)"
                ).count()
                == 0
            )
            assert (
                page.locator("main img:not([src^='/']):not([src^='data:image/png'])").count() == 0
            )
            for link in list_attributes(page, "a", "href"):
                assert re.match(r"[/#]", link), path
            for action in list_attributes(page, "form", "action"):
                assert (action or "/").startswith("/")
            body = page.locator("body")
            texts = body.inner_text(), body.text_content() or ""
            seen |= {payload for payload in shown if any(payload in text for text in texts)}
        assert seen == shown
        page.goto(f"{address}{paths[0]}")
        picture(page, "hostile")
        page.goto(f"{address}/triage?state=all")
        with page.expect_download() as download:
            page.get_by_role("link", name="Export").click()
        download.value.save_as(tmp_path / "flags.csv")
    with (tmp_path / "flags.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any(payload in cell for cell in cells for payload in shown)
    assert not [
        cell
        for cell in cells
        if cell.lstrip()[:1] in ("=", "@")
        or (cell[:1] in "+-" and not re.fullmatch(r"-?[0-9.e+-]+|", cell))
    ]


def list_attributes(page: Page, element: str, attribute: str) -> list[str]:
    """An attribute of all elements of a name, empty where it is missing: asked at once, since each
    question to a browser takes its time.
    """
    read = "(all, name) => all.map((one) => one.getAttribute(name) || '')"
    return list(page.locator(element).evaluate_all(read, attribute))


def json_texts(flag: dict[str, object]) -> str:
    """Everything that a flag's messages say."""
    return "\n".join(message["content"] for message in flag["messages"])  # type: ignore[attr-defined]
