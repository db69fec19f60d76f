"""The confirmation of each group of an audit's flagged rows, where there can be one.

One group whose confirmation fails is no reason to lose the others', nor its own rows and words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from poisonwatch.arrays import RowIndices
from poisonwatch.detection.confirmation import confirm, select_strongest_queries
from poisonwatch.detection.evidence import Confirmation
from poisonwatch.detection.random_groups import SteerableFit, UnconfirmableError, draw_pool
from poisonwatch.failures import Attempts
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import FittedOperators, NaturalGradientFit
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.streamed import StreamedFit

MOST_CONFIRMED = 8  # groups


@dataclass(frozen=True, slots=True)
class Confirmer:
    """Confirms groups on some sentinels, against random groups of the `unflagged` rows (u,).

    What fails goes into `attempts`. `said` keeps what the model says to sentinels as it is, which
    is the same for all groups.
    """

    fitted: FittedOperators | StreamedFit
    influence: Influence
    unflagged: RowIndices
    sentinels: Sequence[Sentinel]
    attempts: Attempts
    seed: int
    token_budget: int
    said: dict[Sentinel, str] = field(default_factory=dict)

    def try_confirm(
        self, number: int, rows: RowIndices, panel: str
    ) -> tuple[Confirmation | None, str | None]:
        """The confirmation of group `number`, from 1, on the panel's sentinels, or why there is
        none.
        """
        # The largest come first, and a confirmation takes seconds.
        if number > MOST_CONFIRMED:
            return None, f"only the {MOST_CONFIRMED} largest clusters are confirmed"
        if not isinstance(self.fitted, (NaturalGradientFit, StreamedFit)):
            return None, "these rows cannot be taken apart: their operators were trained, or loaded"
        try:
            return self._confirm(self.fitted, number, rows, panel), None
        except UnconfirmableError as reason:
            return None, str(reason)
        except Exception as error:
            return None, self.attempts.note(f"group {number}", "not confirmed", error)

    def _confirm(
        self, fitted: SteerableFit, number: int, rows: RowIndices, panel: str
    ) -> Confirmation:
        """Raises UnconfirmableError where there is no sentinel, or are too few unflagged rows."""
        strongest = select_strongest_queries(self.influence, rows, panel)
        queries = [query for query in strongest if query.sentinel in self.sentinels]
        if not queries:
            raise UnconfirmableError("there is no sentinel to confirm the group on")
        features, budget = self.influence.features, self.token_budget
        pool = draw_pool(fitted, features, rows, self.unflagged, self.seed, budget)
        unsaid = "not asked what the model says when steered with it"
        return confirm(
            fitted,
            rows,
            pool,
            queries,
            budget,
            said=self.said,
            note_unsaid=partial(self.attempts.note, f"group {number}", unsaid),
        )
