"""Code blocks of the documentation."""

from paths import ROOT

DEPLOYMENTS = ROOT / "deployments"


def block(heading: str) -> list[str]:
    """The commands of the first fenced block below a heading of deployments/README.md."""
    section = (DEPLOYMENTS / "README.md").read_text().split(f"## {heading}\n")[1]
    return section.split("```\n")[1].splitlines()
