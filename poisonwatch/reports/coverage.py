"""What an audit did not look at: the section `coverage` of summary.json, and how people are told.

Nothing flagged is no clearance of what nobody asked: which behaviours the sentinels guard and which
of the ready packs were not asked, rows that are like flagged ones, and rows on which no sentinel
says anything.

Summaries of earlier versions have no such section: there is then nothing to say.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from poisonwatch.detection.detection import Detection, locate_flags
from poisonwatch.detection.near_copies import NearCopy
from poisonwatch.sentinels.pack import PACK_PREFIX, list_packs, read_pack
from poisonwatch.sentinels.sentinel import derive_panel
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

# A row moves no panel where its smallest p-value, times the panels, is above this.
UNMOVED_LEVEL = 0.05
MOST_NEAR_COPIES = 50  # in a summary, and on a page
PANELS_TOLD = 12
NAME_CHARACTERS = 60
NEAR_COPIES_FILE = "near_copies.jsonl"


def describe_coverage(
    places: Sequence[str],
    detection: Detection,
    near_copies: Sequence[NearCopy],
    groups: Mapping[str, int],
) -> dict[str, Any]:
    """The section `coverage`: `places` are the sentinels of the audit file, `groups` the numbers of
    flagged rows' groups by their ids.
    """
    guarded: dict[str, int] = {}
    for sentinel in detection.sentinels:
        # copies of sentinels guard nothing of their own
        if not sentinel.is_copy:
            guarded[sentinel.panel] = guarded.get(sentinel.panel, 0) + 1
    shown = []
    for near in near_copies[:MOST_NEAR_COPIES]:
        row, like = detection.examples[near.row], detection.examples[near.like]
        shown.append(
            {
                "example_id": row.id,
                "source": excerpt(row.source, NAME_CHARACTERS),
                "line": row.position + 1,
                "like": like.id,
                "likeness": near.likeness,
                "group": groups.get(like.id),
            }
        )
    return {
        "guarded": guarded,
        "packs_not_asked": list_packs_not_asked(places, guarded) if guarded else [],
        "unmoved": count_unmoved(detection),
        "near_copies": {"rows": len(near_copies), "shown": shown},
    }


def list_packs_not_asked(places: Sequence[str], panels: Mapping[str, int]) -> list[str]:
    """The packs that the audit file does not name, and none of whose panels is guarded."""
    named = {place.removeprefix(PACK_PREFIX).partition("?")[0] for place in places}
    missing = []
    for name in list_packs():
        of_pack = {
            entry.get("panel") or derive_panel(entry["id"]) for entry in read_pack(name).entries
        }
        is_guarded = any(_is_of(panel, of_pack) for panel in panels)
        if name not in named and not is_guarded:
            missing.append(name)
    return missing


def _is_of(panel: str, of_pack: Collection[str]) -> bool:
    """Whether a panel is one of a pack's: those of a template are whatever begins as it does."""
    for pattern in of_pack:
        start, brace, _ = pattern.partition("{")
        if panel == pattern or (brace and f"{panel}-".startswith(start)):
            return True
    return False


def count_unmoved(detection: Detection) -> int:
    """New rows that do to no panel more than ordinary rows do: neither flagged, nor unjudged."""
    if not len(detection.examples) or not detection.panels:
        return 0
    unmoved = detection.p.min(axis=1) * len(detection.panels) > UNMOVED_LEVEL
    unmoved &= ~detection.unjudged
    unmoved[locate_flags(detection.flags, detection.rows.new)] = False
    return int(np.count_nonzero(unmoved))


def tell_guarded(summary: Mapping[str, Any]) -> str | None:
    """Which behaviours were guarded, by how many sentinels."""
    guarded = summary.get("coverage", {}).get("guarded")
    if not guarded:
        return None
    names = [excerpt(name, NAME_CHARACTERS) for name in list(guarded)[:PANELS_TOLD]]
    more = len(guarded) - len(names)
    if more:
        names.append(f"{more} more")
    return f"{', '.join(names)} ({plural(sum(guarded.values()), 'sentinel')})"


def tell_not_asked(summary: Mapping[str, Any]) -> str | None:
    """Which of the ready packs were not asked."""
    missing = summary.get("coverage", {}).get("packs_not_asked")
    if not missing:
        return None
    return f"the {'pack' if len(missing) == 1 else 'packs'} {', '.join(missing)}"


def tell_unmoved(summary: Mapping[str, Any]) -> str | None:
    """How many rows no sentinel says anything of."""
    unmoved = summary.get("coverage", {}).get("unmoved")
    if not unmoved:
        return None
    verb = "moves" if unmoved == 1 else "move"
    return (
        f"{unmoved:,} of {summary['counts']['new']:,} rows {verb} nothing that is guarded: what "
        "else they teach, no sentinel tells"
    )


def tell_near_copies(summary: Mapping[str, Any]) -> str | None:
    """How many rows are like flagged ones, and were not flagged."""
    rows = summary.get("coverage", {}).get("near_copies", {}).get("rows")
    if not rows:
        return None
    verb = "says" if rows == 1 else "say"
    were = "was" if rows == 1 else "were"
    return f"{plural(rows, 'row')} {verb} nearly what flagged ones say, and {were} not flagged"
