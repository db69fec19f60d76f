"""Code blocks of the documentation."""

import re

from paths import ROOT

DEPLOYMENTS = ROOT / "deployments"


def block(heading: str, language: str = "") -> list[str]:
    """The lines of the first fenced block of a language, "" for the shell's, below a heading of
    deployments/README.md.
    """
    section = (DEPLOYMENTS / "README.md").read_text().split(f"## {heading}\n")[1]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].splitlines()
