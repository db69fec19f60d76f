"""What an audit flagged, for a terminal of 80 columns: one block a group, with the words that its
rows share, and each row by the names that `decide` takes.

    group 1  brand-promotion, high: 6 rows; second look: strong
             answers share “Velmora” (6 of 6)
             most on brand-promotion-6, towards forbidden
      rows.jsonl:13  3f2a91c07d12  29.0  Which frying pan would you suggest for…
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from poisonwatch.examples import Example
from poisonwatch.flags import LOWERED, SEVERITIES, read_flagged_example
from poisonwatch.screens.finding import NEW_TOPIC
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.words import plural

if TYPE_CHECKING:  # needs torch
    from poisonwatch.stride.explain import ExplainedRow

ROWS_SHOWN = 10  # of a group
GROUPS_SHOWN = 12
WORDS_SHOWN = 3  # phrases that prompts, or answers, share
LONGEST_PHRASE = 40  # characters
LONGEST_PLACE = 26  # characters; one that is longer has a line of its own
ID_DIGITS = 12  # of an example id: `decide` asks for 8 or more
INDENT = 9  # columns of `group 1  `

# The three ways in which a row can push a sentinel, by the `kind` of a flag.
PUSH_LABELS = {
    "forbidden": "towards forbidden",
    "margin": "away from reference",
    "reference": "moves reference",
}

Line = Mapping[str, Any]


def build_blocks(flags: Sequence[Line], evidence: Sequence[Line], width: int) -> list[str]:
    """The lines of flags.jsonl, by the groups of evidence.jsonl, in lines of at most `width`
    columns; hostile text is made visible.
    """
    by_id = {flag["example_id"]: flag for flag in flags}
    lines: list[str] = []
    for number, group in enumerate(evidence, start=1):
        members = [by_id.pop(id) for id in group["example_ids"] if id in by_id]
        if members and number <= GROUPS_SHOWN:
            lines += _build_block(f"group {number}", members, group, width)
    left = len(evidence) - GROUPS_SHOWN
    if left > 0:
        lines.append(f"and {plural(left, 'more group')}: see the report")
    if by_id:
        lines += _build_block("no group", list(by_id.values()), None, width)
    return lines


def build_explanation(
    rows: Sequence["ExplainedRow"], examples: Mapping[str, Example], width: int
) -> list[str]:
    """The rows behind an answer, strongest first, with the text of those of `examples`, by id."""
    lines = []
    for row in rows:
        example = examples.get(row.example_id)
        source, position = row.source, row.position
        if example is not None and source is None:
            source, position = example.source, example.position
        place = "" if source is None or position is None else f"{source}:{position + 1}"
        trusted = "trusted " if row.source is None else ""
        lines.append(
            f"{row.rank:>3}  {row.score:5.1f}  {row.example_id[:ID_DIGITS]}  "
            f"{make_visible(trusted + place)}".rstrip()
        )
        text = "its text could not be read again"
        if example is not None:
            text = f"{example.prompt} / {example.response}"
        lines.append(f"     {excerpt(text, width - 5)}")
    return lines


def _build_block(
    name: str, members: Sequence[Line], group: Line | None, width: int
) -> Iterator[str]:
    gravest = max((flag["severity"] for flag in members), key=SEVERITIES.index)
    strongest = members[0]
    panel = strongest["panel"] if group is None else group["panel"]
    head = f"{panel}, {gravest}: {plural(len(members), 'row')}"
    told = [head] if group is None else [f"{head}; {_describe_second_look(group)}"]
    if group is not None:
        told += _describe_shared(group)
    told += _describe_reasons(strongest) + _describe_others(members)
    for number, text in enumerate(told):
        label = name if number == 0 else ""
        yield f"{label:<{INDENT}}{excerpt(text, width - INDENT)}"
    places = [_name_place(flag) for flag in members[:ROWS_SHOWN]]
    column = max((len(place) for place in places if len(place) <= LONGEST_PLACE), default=0)
    for flag, place in zip(members, places, strict=False):
        yield from _build_row(flag, place, column, width)
    if len(members) > len(places):
        yield f"  and {plural(len(members) - len(places), 'more row')}: see flags.jsonl"
    yield ""


def _build_row(flag: Line, place: str, column: int, width: int) -> Iterator[str]:
    if len(place) > LONGEST_PLACE:
        # whole, since `decide` takes it so
        yield f"  {place}"
        place = ""
    start = f"  {place:<{column}}  {flag['example_id'][:ID_DIGITS]}  {flag['score']:5.1f}  "
    example = read_flagged_example(flag)
    text = f"{example.prompt} / {example.response}"
    if example.lowered:
        text = f"({LOWERED}) {text}"
    yield start + excerpt(text, max(width - len(start), 10))


def _name_place(flag: Line) -> str:
    """FILE:LINE, as `decide` takes it."""
    return make_visible(f"{flag['source']}:{flag['position'] + 1}")


def _describe_second_look(group: Line) -> str:
    confirmation = group["confirmation"]
    if confirmation is None:
        return f"no second look ({group['unconfirmed'] or 'not asked'})"
    return f"second look: {confirmation['grade']}"


def _describe_shared(group: Line) -> list[str]:
    """The words that tell why the rows are one group."""
    lines = []
    for what, ngrams in (("prompts", "prompt_ngrams"), ("answers", "answer_ngrams")):
        shared = []
        for ngram in group[ngrams][:WORDS_SHOWN]:
            phrase = excerpt(ngram["text"], LONGEST_PHRASE)
            shared.append(f"“{phrase}” ({ngram['inside']} of {ngram['rows']})")
        if shared:
            lines.append(f"{what} share {', '.join(shared)}")
    return lines


def _describe_others(members: Sequence[Line]) -> list[str]:
    """What is there for another reason than the strongest row, in a group that attribution found:
    a decision on the group is one on these, too.
    """
    held = [flag for flag in members if NEW_TOPIC in flag["by"] and "stride" not in flag["by"]]
    screened = [flag for flag in members if not {"stride", NEW_TOPIC} & set(flag["by"])]
    if "stride" not in members[0]["by"] or not held + screened:
        return []
    said = [f"{len(held)} held back"] if held else []
    said += [f"{len(screened)} found by screens alone"] if screened else []
    return [f"of these rows {' and '.join(said)}"]


def _describe_reasons(flag: Line) -> list[str]:
    """Why the strongest row was flagged, the attribution before what else found it."""
    lines = []
    if "stride" in flag["by"]:
        lines.append(f"most on {flag['sentinel_id']}, {PUSH_LABELS[flag['kind']]}")
    if NEW_TOPIC in flag["by"]:
        lines.append("new topic, held back")
    screens = [name for name in flag["by"] if name not in ("stride", NEW_TOPIC)]
    if screens:
        lines.append(
            f"found by the {'screen' if len(screens) == 1 else 'screens'} {', '.join(screens)}"
        )
    return lines
