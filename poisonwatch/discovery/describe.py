"""From groups of places to what people are shown: rows, the words that they share, how unusual
they are, what the steered model says, and whether earlier audits had them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import RowIndices
from poisonwatch.detection.clusters import find_words_in_common
from poisonwatch.detection.shared_ngrams import SharedNgram
from poisonwatch.discovery.described import (
    RATE,
    DescribedGroup,
    DiscoveryReport,
    FoundRow,
)
from poisonwatch.discovery.directions import MOST_ROWS, measure_directions
from poisonwatch.discovery.groups import Discovery, FoundGroup, find_groups
from poisonwatch.discovery.precedents import EarlierAudit, find_direction, find_precedents
from poisonwatch.discovery.saying import SteeredSpeaker
from poisonwatch.examples import Example
from poisonwatch.failures import Attempts
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.saved_rows import RowReader, SavedRows
from poisonwatch.stride.streamed import StreamedFit

MOST_SHOWN = 20  # groups
LEAST_SHOWN = 10  # groups, whether or not they passed


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedRows:
    """An audit's rows, as far as they are searched: what is left of each (`fitted`, n rows), which
    are `trusted` (n,), and those that can be read, by id. `places` says where new rows are: source
    and zero-based position, by id; `read_rows` reads rows whose gradients were not kept.
    """

    audit_id: str
    fitted: SavedRows | StreamedFit
    trusted: NDArray[np.bool_]
    examples: Mapping[str, Example]
    places: Mapping[str, tuple[str, int]]
    read_rows: RowReader
    token_budget: int


def refuse_excess(n: int) -> None:
    """Raise ValueError where `n` rows are more than can be compared with each other: before they
    are read for it.
    """
    if n > MOST_ROWS:
        raise ValueError(f"{n:,} rows are more than can be compared with each other, {MOST_ROWS:,}")


def discover_groups(
    rows: SearchedRows,
    earlier: Iterable[EarlierAudit | None],
    seed: int = 0,
    attempts: Attempts | None = None,
    progress: Progress = silent,
) -> DiscoveryReport:
    """The groups among an audit's rows, described, and what `earlier` audits, latest first, have of
    them; None stands for one that cannot be compared with. The model is not asked.

    What fails once groups are found goes into `attempts`, and is left out. Raises ValueError where
    nothing was kept of the rows' gradients, or they are too many.
    """
    attempts = attempts or Attempts()
    directions = measure_directions(rows.fitted, progress)
    found = find_groups(directions, rows.trusted, seed=seed)
    del directions  # n x n numbers
    ids = rows.fitted.ids
    report = _describe(rows.audit_id, found, ids, rows.examples, rows.places, attempts)
    with attempts.part("groups of earlier audits", "not compared with"):
        return _add_precedents(report, rows, earlier)
    return report


def _describe(
    audit_id: str,
    found: Discovery,
    ids: Sequence[str],
    examples: Mapping[str, Example],
    places: Mapping[str, tuple[str, int]],
    attempts: Attempts,
) -> DiscoveryReport:
    """The report of a search: every group that passed, at most MOST_SHOWN, and the strongest of the
    others, up to LEAST_SHOWN in all.
    """
    passed = [group for group in found.groups if group.q_value <= RATE][:MOST_SHOWN]
    others = [group for group in found.groups if group.q_value > RATE]
    others = others[: max(LEAST_SHOWN - len(passed), 0)]
    shown = [*passed, *others]
    prompts, answers = _find_words(shown, ids, examples, attempts)
    groups = []
    for number, group in enumerate(shown, start=1):
        rows = []
        for place in group.rows:
            source, position = places.get(ids[place], ("", 0))
            rows.append(FoundRow(ids[place], source, position))
        groups.append(
            DescribedGroup(
                number=number,
                passed=number <= len(passed),
                p_value=float(group.p_value),
                q_value=float(group.q_value),
                strength=float(group.strength),
                nearest=float(group.nearest),
                trusted_alike=len(group.trusted_rows),
                trusted=found.n_trusted,
                rows=tuple(rows),
                prompt_words=prompts[number - 1],
                answer_words=answers[number - 1],
            )
        )
    return DiscoveryReport(
        audit_id=audit_id,
        rows=found.n_new,
        trusted=found.n_trusted,
        rate=RATE,
        rule=found.rule,
        groups=tuple(groups),
    )


def _find_words(
    groups: Sequence[FoundGroup],
    ids: Sequence[str],
    examples: Mapping[str, Example],
    attempts: Attempts,
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """What prompts, and what answers, of each group share."""
    readable = [place for place, id in enumerate(ids) if id in examples]
    number = {place: k for k, place in enumerate(readable)}
    members = []
    for group in groups:
        known = [number[place] for place in group.rows if place in number]
        members.append(np.array(known, dtype=np.int64))
    texts = [examples[ids[place]] for place in readable]
    prompts, answers = find_words_in_common(texts, members, attempts)
    return [_list_texts(grams) for grams in prompts], [_list_texts(grams) for grams in answers]


def _list_texts(grams: Sequence[SharedNgram]) -> tuple[str, ...]:
    return tuple(gram.text for gram in grams)


def ask_about_groups(
    report: DiscoveryReport,
    rows: SearchedRows,
    numbers: Sequence[int],
    attempts: Attempts,
    progress: Progress = silent,
) -> DiscoveryReport:
    """With what the model says when it is steered with the groups of these `numbers`; one that
    cannot be asked about says why, and `attempts` has the failure.
    """
    speaker = SteeredSpeaker(rows.fitted, rows.read_rows, rows.token_budget)
    wanted = [group for group in report.groups if group.number in numbers]
    for group in progress(wanted, "asking", len(wanted)):
        own = [
            rows.examples[row.example_id] for row in group.rows if row.example_id in rows.examples
        ]
        try:
            replies = speaker.ask(_locate(group, rows.fitted.ids), own)
            described = replace(group, replies=replies, unsaid=None)
        except LookupError as reason:
            described = replace(group, unsaid=str(reason))
        except Exception as error:
            what = f"group {group.number} of discovery"
            unsaid = attempts.note(what, "not asked what the model says", error)
            described = replace(group, unsaid=unsaid)
        report = report.with_group(described)
    return report


def _add_precedents(
    report: DiscoveryReport, rows: SearchedRows, earlier: Iterable[EarlierAudit | None]
) -> DiscoveryReport:
    fitted, trusted = rows.fitted, rows.trusted
    directions = []
    for group in report.groups:
        places = _locate(group, fitted.ids)
        directions.append(
            find_direction(fitted, places, trusted, rows.read_rows, rows.token_budget)
        )
    own = {fitted.ids[k] for k in np.flatnonzero(~trusted)}
    precedents, left_out = find_precedents(directions, earlier, own)
    groups = []
    for group, of_group in zip(report.groups, precedents, strict=True):
        groups.append(replace(group, precedents=of_group))
    return replace(report, groups=tuple(groups), left_out=left_out)


def _locate(group: DescribedGroup, ids: Sequence[str]) -> RowIndices:
    """The places of a group's rows."""
    wanted = {row.example_id for row in group.rows}
    place = {id: k for k, id in enumerate(ids) if id in wanted}
    return np.array([place[row.example_id] for row in group.rows], dtype=np.int64)
