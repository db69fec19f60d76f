import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from poisonwatch.arrays import Array
from poisonwatch.errors import ConfigError
from poisonwatch.model.encoding import Encoded
from poisonwatch.recovery.membership import Membership
from poisonwatch.stride.settings import TrainingSettings


class Schedule:
    """Which rows meet which operators in which step: functions of the seed, the step and the rows'
    contents.
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        membership: Membership,
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        self.m = min(settings.operators_per_row, membership.K)
        if self.m < membership.d:
            raise ConfigError(
                f"{self.m} operators a row are too few: every row is in {membership.d} subsets, choose at least that many"
            )
        self.n, self.b, self.p, self.seed = (
            len(encoded),
            settings.rows_per_step,
            settings.sketch,
            seed,
        )
        self.membership = membership
        self.M = membership.matrix()
        self.steps_per_epoch = -(-self.n // self.b)
        self.steps = settings.epochs * self.steps_per_epoch
        keys = [
            _hash_content(row, subsets)
            for row, subsets in zip(encoded, membership.subsets, strict=True)
        ]
        self.order = np.array(
            sorted(range(self.n), key=keys.__getitem__), dtype=np.int64
        )  # one that the rows' places do not change
        self.contents = hash_parts(*(keys[i] for i in self.order))

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows (b,) of a step; every epoch meets each row once."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.order[
            self._rng("rows", epoch).permutation(self.n)[place * self.b : (place + 1) * self.b]
        ]

    def operators(self, step: int) -> NDArray[np.int64]:
        """The m operators (b, m) of a step's rows: each row's own d, then others without
        repetition.
        """
        rng, d, K = self._rng("operators", step), self.membership.d, self.membership.K
        own = self.membership.subsets[self.rows(step)]
        others = np.stack([rng.choice(K - d, self.m - d, replace=False) for _ in own])
        for taken in np.sort(
            own, axis=1
        ).T:  # number the subsets that do not hold the row from 0, then make room for those that do
            others += others >= taken[:, None]
        return np.hstack([own, others])

    def sketch(self, step: int) -> Array:
        """M~ = M R (K, p), R (n, p) Gaussian with variance 1/p: E[M~ M~^T] = M M^T. Drawn anew in
        every step.
        """
        R = np.empty((self.n, self.p))
        R[self.order] = self._rng("sketch", step).standard_normal((self.n, self.p)) / self.p**0.5
        sketch: Array = self.M @ R
        return sketch

    def _rng(self, use: str, number: int) -> np.random.Generator:
        return np.random.default_rng(
            int.from_bytes(bytes.fromhex(hash_parts(self.seed, use, number)))
        )


def _hash_content(row: Encoded, subsets: NDArray[np.int64]) -> str:
    return hash_parts(
        np.asarray(row.input_ids, dtype=np.int64).tobytes(),
        np.asarray(row.answer, dtype=np.bool_).tobytes(),
        subsets.tobytes(),
    )


def hash_parts(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
