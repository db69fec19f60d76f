"""What attribution made of an audit's rows, for all that comes after it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from poisonwatch.detection.detection import Detection
from poisonwatch.detection.evidence import ClusterEvidence, number_groups
from poisonwatch.sentinels.sentinel import SentinelProblem
from poisonwatch.stride.unmeasured import Unmeasured

# Whoever reads or tells of flags needs no model.
if TYPE_CHECKING:
    from poisonwatch.checkpoints.store import CheckpointStore
    from poisonwatch.detection.near_copies import NearCopy
    from poisonwatch.detection.new_topics import NewTopic
    from poisonwatch.model.pretrained import Pretrained
    from poisonwatch.stride.fitted import FittedOperators
    from poisonwatch.stride.influence import Influence
    from poisonwatch.stride.streamed import StreamedFit


@dataclass(frozen=True, slots=True)
class AttributionResult:
    """What attribution made of an audit's rows. Where no row was new, or no new one could be
    measured, `detection` is empty.
    """

    detection: Detection
    evidence: tuple[ClusterEvidence, ...] = ()
    problems: tuple[SentinelProblem, ...] = ()
    new_topics: tuple["NewTopic", ...] = ()
    near_copies: tuple["NearCopy", ...] = ()
    unmeasured: Unmeasured = field(default_factory=Unmeasured)
    fitted: "FittedOperators | StreamedFit | None" = None
    influence: "Influence | None" = None
    model: "Pretrained | None" = None
    # What is kept until the audit is committed.
    store: "CheckpointStore | None" = None

    @property
    def groups(self) -> dict[str, int]:
        """By example id, the number of a flagged row's group from 1: its line of evidence.jsonl."""
        return number_groups(self.evidence)
