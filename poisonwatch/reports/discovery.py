"""What was discovered, for people: the section `discovery` of summary.json, and read back.

Summaries of audits that did not look for groups, and of earlier versions, have None, or no such
section.
"""

from collections.abc import Mapping
from typing import Any

from poisonwatch.discovery.described import DiscoveryReport


def summarise_discovery(report: DiscoveryReport | None) -> dict[str, Any] | None:
    """The section: how many groups were `found`, and how many that no earlier audit had (`new`),
    those within others not counted; and how many are described in discovery.json (`groups`). Free
    of row text.
    """
    if report is None:
        return None
    return {
        "found": len(report.leading),
        "new": len(report.new),
        "groups": len(report.groups),
        "sentence": report.sentence,
        "rule": report.rule,
    }


def tell_discovery(summary: Mapping[str, Any]) -> str | None:
    """What was found, in one line; None where nobody looked."""
    section = summary.get("discovery")
    if section is None:
        return None
    told = str(section["sentence"])
    if section["new"]:
        told += f"; {section['new']} new since the last audit"
    return told
