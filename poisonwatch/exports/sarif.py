"""Flagged places as SARIF 2.1.0 (Static Analysis Results Interchange Format, OASIS): code hosts
show them beside the lines of a pull request.

A place is a result, a panel or a screen its rule. Row text comes in a short excerpt alone, and
neither as a link nor as anything that a viewer would take for one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import poisonwatch
from poisonwatch.exports.flagged import list_facts, show_reasons
from poisonwatch.exports.lines import has_lines
from poisonwatch.flags import ATTRIBUTION, read_flagged_example
from poisonwatch.text.display import excerpt, make_visible

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
# The folder that files are named from, by the name that code hosts know.
ROOT = "%SRCROOT%"
LEVELS = {"high": "error", "medium": "warning", "low": "note"}
EXCERPT_CHARACTERS = 80
HASH_DIGITS = 16
# Characters that a name may keep: those of a path, and of an address.
_PATH, _ADDRESS = "/", "/:?#[]@!$&'()*+,;=%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where flagged rows stand: `of` has files and zero-based positions by example id, `lines` the
    lines (from 1) of those that are known. Relative files start at `folder`, and are named from
    `root`, which holds it; without a folder the source is none of files.
    """

    of: Mapping[str, Sequence[tuple[str, int]]]
    folder: Path | None
    root: Path
    lines: Mapping[tuple[str, int], int] = field(default_factory=dict)


def make_sarif(rows: Sequence[Mapping[str, Any]], name: str, places: Places) -> dict[str, Any]:
    """A log with one run: a result for each place of these rows, in their order; rows that stand
    nowhere have none. What people called benign is suppressed.
    """
    rules: dict[str, dict[str, Any]] = {}
    results = list(_list_results(rows, places, rules))
    driver = {
        "name": "Poisonwatch",
        "version": poisonwatch.__version__,
        "semanticVersion": poisonwatch.__version__,
        "rules": list(rules.values()),
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"poisonwatch/{make_visible(name)}/"},
        "originalUriBaseIds": {ROOT: {"description": {"text": "The folder of the sources."}}},
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _list_results(
    rows: Sequence[Mapping[str, Any]], places: Places, rules: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The results; the rules that they name are added to `rules`, by id."""
    copies: Counter[tuple[str, str]] = Counter()
    for row in rows:
        rule = _make_rule(row)
        for file, position in places.of.get(row["example_id"], ()):
            rules.setdefault(rule["id"], rule)
            copies[row["example_id"], file] += 1
            nth = copies[row["example_id"], file]
            result = _make_result(row, position, nth)
            result["ruleId"] = rule["id"]
            result["ruleIndex"] = list(rules).index(rule["id"])
            result["locations"] = [_make_location(file, position, places)]
            yield result


def _make_rule(row: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of a row: the panel that it pushes, or the first screen that found it where
    attribution did not.
    """
    by = row.get("by", [ATTRIBUTION])
    panel = make_visible(row["panel"])
    if ATTRIBUTION in by or not by:
        id, short = f"panel/{panel}", f"Row that pushes panel {panel}"
        full = (
            "By training-data attribution, training on the row changes an answer of the model that "
            f"the sentinels of panel {panel} guard."
        )
    else:
        id, short = f"screen/{by[0]}", f"Row that the screen {by[0]} found"
        full = f"The text of the row gives itself away: the screen {by[0]} found it."
    return {
        "id": id,
        "shortDescription": {"text": _defuse(short)},
        "fullDescription": {"text": _defuse(full)},
        "help": {
            "text": "Say what the row is, with `poisonwatch decide` or in the dashboard: poison "
            "stays in quarantine, benign is released."
        },
        "properties": {"tags": ["security", "data-poisoning"]},
    }


def _make_result(row: Mapping[str, Any], position: int, nth: int) -> dict[str, Any]:
    """What is said of a row at the `nth` place (from 1) that holds it in a file."""
    says = excerpt(read_flagged_example(row).response, EXCERPT_CHARACTERS)
    id = row["example_id"]
    result: dict[str, Any] = {
        "level": LEVELS.get(row["severity"], "warning"),
        "message": {"text": _defuse(f"Row {position + 1}: {show_reasons(row)}. It says: {says}")},
        "fingerprints": {"exampleId/v1": id},
        # Of this name, and ending in a count: what code hosts follow a result by.
        "partialFingerprints": {"primaryLocationLineHash": f"{id[:HASH_DIGITS]}:{nth}"},
        "properties": list_facts(row),
    }
    if row.get("decided") == "benign":
        result["suppressions"] = [{"kind": "external", "status": "accepted"}]
    return result


def _make_location(file: str, position: int, places: Places) -> dict[str, Any]:
    line = places.lines.get((file, position))
    if line is None:
        # Code hosts want a line: of other files than JSON Lines, the message alone names the row.
        line = position + 1 if has_lines(file) else 1
    artifact = _name_artifact(file, places)
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}


def _name_artifact(file: str, places: Places) -> dict[str, str]:
    """A file as an address: below the root relative to it, else its whole address."""
    if "://" in file:
        return {"uri": quote(file, safe=_ADDRESS)}
    if places.folder is None:
        return {"uri": quote(file, safe=_PATH)}
    path = places.folder / file
    if path.is_relative_to(places.root):
        return {"uri": quote(str(path.relative_to(places.root)), safe=_PATH), "uriBaseId": ROOT}
    return {"uri": path.as_uri()}


def _defuse(text: str) -> str:
    """Text in which no viewer finds a link (SARIF 3.11.6, and Markdown)."""
    return text.replace("](", "] (")
