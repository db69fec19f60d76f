"""What a search for groups found, as it is kept and shown: `discovery.json`.

How groups are found is in `groups`, and what the steered model says in `saying`: those need
PyTorch; whoever shows a finding, or makes a sentinel of it, does not.

Row text, and what a steered model says, is hostile. Here it is data: pass it through
`text.display` where it is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from poisonwatch import __version__
from poisonwatch.discovery.nesting import find_leaders, order_by_leader
from poisonwatch.errors import InputError
from poisonwatch.examples import Message
from poisonwatch.text.words import plural, split_words

RATE = 0.1  # of false groups among those that pass
SAID = 3  # groups whose steered model is asked, where nobody says how many


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of a group; `position` is zero-based in its `source`."""

    example_id: str
    source: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model says to a prompt as it is (`before`), and steered with a group (`after`).

    The prompt is that of a row of the group, `example_id`, whose own answer is `taught`; or a
    neutral one, and both are None.
    """

    messages: tuple[Message, ...]
    before: str
    after: str
    example_id: str | None = None
    taught: str | None = None

    @property
    def prompt(self) -> str:
        return "\n\n".join(message.content for message in self.messages)

    @property
    def change(self) -> float:
        """How far the two answers are apart, in [0, 1]: the share of their words that only one of
        them has.
        """
        before, after = set(split_words(self.before)), set(split_words(self.after))
        if not before | after:
            return 0.0
        return len(before ^ after) / len(before | after)


@dataclass(frozen=True, slots=True)
class EarlierRows:
    """Rows of an earlier audit, by its `number` in the ledger, that push the way a group does."""

    audit: int
    audit_id: str
    rows: int
    sources: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Precedents:
    """What earlier audits have of a group's direction: of `rows` rows in `audits` audits, the
    latest of them `last` (its number in the ledger), those of `alike`.
    """

    audits: int
    rows: int
    last: int | None
    alike: tuple[EarlierRows, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether there were earlier audits, and none had this direction."""
        return self.audits > 0 and not self.alike

    @property
    def words(self) -> str:
        """In one sentence, without the names of sources."""
        if not self.audits:
            return "no earlier audit to compare with"
        among = f"{plural(self.rows, 'row')} of {plural(self.audits, 'earlier audit')}"
        if self.is_new:
            return f"new since audit {self.last}: none of {among} pushes this way"
        latest = self.alike[0]
        total = sum(each.rows for each in self.alike)
        return f"known: {total} of {among} push this way, last in audit {latest.audit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedGroup:
    """Rows that push the model the same way, most typical first, by their `number` from 1.

    `passed` says whether its q-value is within the rate that was asked for. `strength` is the mean
    cosine of its pairs; `trusted_alike` trusted rows push the same way, of `trusted` in all, and
    `nearest` is how far the furthest of them goes, as a share of what the group's own rows do.
    `prompt_words` and `answer_words` are what most rows share and few others do. `replies` are None
    where the model was not asked, and `unsaid` may say why. `precedents` are None where earlier
    audits were not looked at.
    """

    number: int
    passed: bool
    p_value: float
    q_value: float
    strength: float
    nearest: float
    trusted_alike: int
    trusted: int
    rows: tuple[FoundRow, ...]
    prompt_words: tuple[str, ...] = ()
    answer_words: tuple[str, ...] = ()
    replies: tuple[Reply, ...] | None = None
    unsaid: str | None = None
    precedents: Precedents | None = None

    @property
    def own_replies(self) -> list[Reply]:
        """Replies to prompts of the group's rows, most changed first."""
        return [reply for reply in self.replies or () if reply.example_id is not None]

    @property
    def neutral_replies(self) -> list[Reply]:
        """Replies to neutral prompts, most changed first."""
        return [reply for reply in self.replies or () if reply.example_id is None]

    @property
    def sources(self) -> dict[str, int]:
        """How many of the rows are of each source, most first."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.source] = counts.get(row.source, 0) + 1
        return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))

    @property
    def unusual(self) -> str:
        """How unusual the group is beside trusted rows, in words."""
        if not self.trusted:
            return "no trusted rows to compare with"
        among = plural(self.trusted, "trusted row")
        furthest = f"the nearest goes {max(self.nearest, 0.0):.0%} as far"
        if not self.trusted_alike:
            return f"none of {among} pushes this way; {furthest}"
        return f"{self.trusted_alike} of {among} push this way, too; {furthest}"

    def to_record(self) -> dict[str, Any]:
        """As JSON, with what follows from the fields in words."""
        record = asdict(self)
        record["sources"] = self.sources
        record["unusual"] = self.unusual
        if self.replies is not None:
            record["replies"] = [_to_record(reply) for reply in self.replies]
        if self.precedents is not None:
            record["precedents"] |= {
                "words": self.precedents.words,
                "is_new": self.precedents.is_new,
            }
        return record


def _to_record(reply: Reply) -> dict[str, Any]:
    messages = [message.to_record() for message in reply.messages]
    return asdict(reply) | {"messages": messages, "change": round(reply.change, 3)}


@dataclass(frozen=True, slots=True)
class Relation:
    """That a group lies within a stronger one, by its `number`, or around it."""

    kind: Literal["within", "around"]
    number: int

    @property
    def words(self) -> str:
        """As in "within group 2"."""
        return f"{self.kind} group {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryReport:
    """What was found among the `rows` new rows of an audit beside `trusted` trusted ones, at a
    false-discovery `rate` over groups; `rule` says what the q-values are calibrated by.

    `groups` are those that passed, best first, and then the strongest of the others. `left_out`
    earlier audits could not be compared with: their records are gone, or of another model.
    """

    audit_id: str
    rows: int
    trusted: int
    rate: float
    rule: str
    groups: tuple[DescribedGroup, ...]
    left_out: int = 0
    version: str = __version__

    @property
    def found(self) -> list[DescribedGroup]:
        """The groups that passed."""
        return [group for group in self.groups if group.passed]

    @property
    def relations(self) -> dict[int, Relation]:
        """By their numbers, the groups that lie within a stronger one, or around it."""
        relations = {}
        for group, place in zip(self.groups, _find_leaders(self.groups), strict=True):
            if place is not None:
                leader = self.groups[place]
                kind: Literal["within", "around"]
                kind = "within" if len(group.rows) <= len(leader.rows) else "around"
                relations[group.number] = Relation(kind, leader.number)
        return relations

    @property
    def leading(self) -> list[DescribedGroup]:
        """The groups that passed, and neither lie within a stronger one nor around it: what is
        counted.
        """
        relations = self.relations
        return [group for group in self.found if group.number not in relations]

    @property
    def ordered(self) -> list[tuple[DescribedGroup, bool]]:
        """All groups, strongest first, but that those within one and around it come after it, and
        whether a group is shown below another.
        """
        passed = [group.passed for group in self.groups]
        order = order_by_leader(_find_leaders(self.groups), passed)
        return [(self.groups[place], is_below) for place, is_below in order]

    @property
    def new(self) -> list[DescribedGroup]:
        """The groups that passed and that no earlier audit had; but for those within a stronger
        one, or around it.
        """
        news = [each for each in self.found if each.precedents and each.precedents.is_new]
        leaders = _find_leaders(news)
        return [group for group, leader in zip(news, leaders, strict=True) if leader is None]

    @property
    def new_by_source(self) -> dict[str, list[int]]:
        """By source, the numbers of the groups that are `new` and that this source has rows of."""
        numbers: dict[str, list[int]] = {}
        for group in self.new:
            for source in group.sources:
                numbers.setdefault(source, []).append(group.number)
        return numbers

    @property
    def sentence(self) -> str:
        """What was found, in one line free of row text."""
        among = plural(self.rows, "new row")
        if not self.trusted:
            return f"without trusted rows nothing says which groups of {among} are news"
        if not self.found:
            return f"no group of {among} stands out"
        leading = len(self.leading)
        pushes = "pushes" if leading == 1 else "push"
        said = f"{plural(leading, 'group')} of {among} {pushes} the model a way of their own"
        others = len(self.found) - leading
        if others:
            said += f", with {others} more within or around"
        return f"{said}, at a false-discovery rate of {self.rate:g} over groups"

    def to_record(self) -> dict[str, Any]:
        """As JSON: `discovery.json`. `found` counts what is `leading`; `within` and `around` have
        the number of the stronger group that holds one, or that one holds.
        """
        relations = self.relations
        return {
            "audit_id": self.audit_id,
            "version": self.version,
            "rows": self.rows,
            "trusted": self.trusted,
            "rate": self.rate,
            "rule": self.rule,
            "found": len(self.leading),
            "sentence": self.sentence,
            "new_by_source": self.new_by_source,
            "left_out": self.left_out,
            "groups": [
                group.to_record() | _record_relation(relations.get(group.number))
                for group in self.groups
            ],
        }

    def get_group(self, number: int) -> DescribedGroup:
        """The group of a number. Raises InputError where there is none."""
        for group in self.groups:
            if group.number == number:
                return group
        known = f"1 to {len(self.groups)}" if self.groups else f"none: {self.sentence}"
        raise InputError(f"there is no group {number}: groups are {known}")

    def list_unasked(self, say: int | None = None, about: int | None = None) -> list[int]:
        """The numbers of the first `say` groups (default: SAID of those that are counted, or else
        the first), and of the one `about`, that the model was not asked about yet. First are those
        that are shown by themselves, in the order in which they are.
        """
        if say is None:
            say = min(SAID, len(self.leading)) or 1
        # sorting keeps the order of those that are alike
        ordered = sorted(self.ordered, key=lambda shown: shown[1])
        first = {group.number for group, _ in ordered[:say]}
        unasked = []
        for group in self.groups:
            if group.replies is None and (group.number in first or group.number == about):
                unasked.append(group.number)
        return unasked

    def with_group(self, group: DescribedGroup) -> "DiscoveryReport":
        """With another description of the group of that number."""
        groups = [group if each.number == group.number else each for each in self.groups]
        return replace(self, groups=tuple(groups))


def _find_leaders(groups: Sequence[DescribedGroup]) -> list[int | None]:
    return find_leaders([[row.example_id for row in group.rows] for group in groups])


def _record_relation(relation: Relation | None) -> dict[str, int | None]:
    nothing: dict[str, int | None] = {"within": None, "around": None}
    return nothing if relation is None else nothing | {relation.kind: relation.number}
