"""Links of the docs that lead out of the repository: looked at every night, where there is a network."""

import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from paths import ROOT
from slow_tests import slow

PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md")),
    ROOT / "benchmarks" / "RESULTS.md",
    ROOT / "deployments" / "README.md",
]
LINK = re.compile(r"\]\((https?://[^)\s]+)\)")
# Reserved for examples (RFC 2606), and this machine.
NOT_THERE = re.compile(r"(^|\.)(example|localhost|invalid|test)(\.(org|com|net))?$|^127\.")
# What says that a page is gone. Others, such as 403 and 429, are said to whoever is no browser.
GONE = {404, 410}
PATIENCE_S = 20.0


def list_links(pages: list[Path]) -> dict[str, str]:
    """The links of pages, each with the first page that has it."""
    found: dict[str, str] = {}
    for page in pages:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if not NOT_THERE.search(urlsplit(link).hostname or ""):
                found.setdefault(link.partition("#")[0], page.name)
    return found


def ask(link: str) -> int | None:
    """The status that a link is answered with; None where nobody answers."""
    request = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def test_links_out_of_the_docs_are_whole_addresses() -> None:
    """Each names a host, by https; examples are left out."""
    links = list_links(PAGES)
    assert len(links) >= 8
    assert all(urlsplit(link).hostname and link.startswith("https://") for link in links), links


@slow
def test_links_out_of_the_docs_lead_somewhere() -> None:
    """None is gone. Where nobody answers at all there is no network, and nothing is known."""
    links = list_links(PAGES)
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(links, pool.map(ask, links), strict=True))
    if all(status is None for status in answers.values()):
        pytest.skip("there is no network: no link of the docs was looked at")
    gone = {link: links[link] for link, status in answers.items() if status in GONE}
    assert gone == {}
    silent = [link for link, status in answers.items() if status is None]
    assert len(silent) < len(links) / 2, f"nobody answers at {silent}"
