"""How far the states of a row's answer lean to what sentinels forbid: beside what a row does to the
model, what the model makes of it.

    x_i       the row's mean coordinates over its answer (the second of its views), less all rows'
    d         mean over a panel's forbidden answers, less that over its reference answers; of the
              rows where the panel has none
    leaning   cos(x_i, (C + tr C / k)^-1 d) ,   C (k, k) the covariance of x over the rows

in robust standard deviations, at most LARGEST either way; with the other sign for a row whose
answer training lowers. Directions between states of two answers are those that steer a model, and
tell preference pairs apart (arXiv 2602.11079); C takes out what all rows of a batch differ in.

It costs no pass: states are seen where gradients are made. Of several layers the last is looked at
(`benchmarks/NOTES.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

from poisonwatch.arrays import Array, Features
from poisonwatch.recovery.robust import standardise
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.panel_answers import PanelAnswers
from poisonwatch.stride.similarity import ANSWER_VIEW

# Robust standard deviations: one row that leans far is no more than one that leans.
LARGEST = 4.0


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """Coordinates `x` (A, k) of the sentinels' `answers` at a layer, each the mean over its
    tokens.
    """

    answers: PanelAnswers
    x: Float[Features, "A k"]

    @classmethod
    def of_sentinels(
        cls, sentinels: Sequence[Sentinel], states: Float[Tensor, "A k"]
    ) -> "AnswerStates":
        """Of the `states` (A, k) of their answers, as `queries` has them."""
        return cls(PanelAnswers.of_sentinels(sentinels), states.numpy())

    def average(self, panel: str, *, forbidden: bool) -> Float[Array, " k"] | None:
        """The mean (k,) over a panel's answers that are forbidden, or are not; None without any.
        Answers of probes that the model overflows on are left out.
        """
        of_panel = self.x[self.answers.find(panel, forbidden=forbidden)]
        finite = of_panel[np.isfinite(of_panel).all(axis=1)]
        if not len(finite):
            return None
        mean: Array = finite.mean(axis=0, dtype=np.float64)
        return mean


def compute_leaning(
    views: Float32[Features, "n views k"],
    signs: Float[Array, " n"],
    answers: AnswerStates,
    panels: Sequence[str],
) -> Float[Array, "n P"]:
    """How far n rows with these views lean to the forbidden `answers` of each of the panels; 0 on
    a panel that forbids nothing, and where all rows are alike.
    """
    n, _, k = views.shape
    leaning = np.zeros((n, len(panels)))
    if not k or n < 2:
        return leaning
    usual = views[:, ANSWER_VIEW].mean(axis=0, dtype=np.float64)
    x = views[:, ANSWER_VIEW] - usual
    covariance = x.T @ x / n
    ridge = np.trace(covariance) / k
    if not ridge > 0:
        return leaning
    lengths = np.linalg.norm(x, axis=1)
    for j, panel in enumerate(panels):
        forbidden, reference = (answers.average(panel, forbidden=kind) for kind in (True, False))
        if forbidden is None:
            continue
        apart = forbidden - (usual if reference is None else reference)
        d = np.linalg.solve(covariance + ridge * np.eye(k), apart)
        cosine = x @ d / np.where(lengths > 0, lengths, np.inf)
        leaning[:, j] = np.clip(standardise(cosine), -LARGEST, LARGEST) * signs
    return leaning
