"""The steps of a lineage, in the order that rows go through them."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["source", "audit", "decision", "release", "training run", "probe"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that rows came from, went through, or went into: its `name` (a file, an id), when
    that was (`at`, ISO 8601; None where nobody recorded it), what came of it in `words`, and the
    same as `facts`. Names and words may hold what rows say: they are hostile.
    """

    kind: Kind
    name: str
    at: str | None
    words: str
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Of what it is (`of`, as a sentence begins), and the steps, by kind and time."""

    of: str
    steps: tuple[Step, ...]

    def list(self, kind: Kind) -> tuple[Step, ...]:
        """The steps of a kind."""
        return tuple(step for step in self.steps if step.kind == kind)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"of": self.of, "steps": [step.record() for step in self.steps]}
