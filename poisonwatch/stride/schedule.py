"""Which rows meet which operators in which step."""

import hashlib
from collections.abc import Sequence

import numpy as np

from poisonwatch.arrays import Array, Integers, RowIndices
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
                f"{self.m} operators a row are too few: every row is in {membership.d} subsets, "
                "choose at least that many"
            )
        self.n = len(encoded)
        self.b = settings.rows_per_step
        self.p = settings.sketch
        self.seed = seed
        self.membership = membership
        self.M = membership.matrix()
        self.steps_per_epoch = -(-self.n // self.b)
        self.steps = settings.epochs * self.steps_per_epoch
        keys = []
        for row, subsets in zip(encoded, membership.subsets, strict=True):
            keys.append(_hash_content(row, subsets))
        # An order that the rows' places do not change.
        self.order = np.array(sorted(range(self.n), key=keys.__getitem__), dtype=np.int64)
        self.contents = hash_parts(*(keys[i] for i in self.order))

    def rows(self, step: int) -> RowIndices:
        """The rows (b,) of a step; every epoch meets each row once."""
        epoch, place = divmod(step, self.steps_per_epoch)
        shuffled = self._make_generator("rows", epoch).permutation(self.n)
        return self.order[shuffled[place * self.b : (place + 1) * self.b]]

    def operators(self, step: int) -> Integers:
        """The m operators (b, m) of a step's rows: each row's own d, then others without
        repetition.
        """
        d, K = self.membership.d, self.membership.K
        generator = self._make_generator("operators", step)
        own = self.membership.subsets[self.rows(step)]
        others = np.stack([generator.choice(K - d, self.m - d, replace=False) for _ in own])
        # Drawn were numbers of the subsets that do not hold the row: make room for those that do,
        # from the lowest.
        for taken in np.sort(own, axis=1).T:
            others += others >= taken[:, None]
        return np.hstack([own, others])

    def sketch(self, step: int) -> Array:
        """M~ = M R (K, p), R (n, p) Gaussian with variance 1/p: E[M~ M~^T] = M M^T. Drawn anew in
        every step.
        """
        generator = self._make_generator("sketch", step)
        # A row's draw goes with its content, not with its place.
        R = np.empty((self.n, self.p))
        R[self.order] = generator.standard_normal((self.n, self.p)) / self.p**0.5
        sketch: Array = self.M @ R
        return sketch

    def _make_generator(self, use: str, number: int) -> np.random.Generator:
        """A stream of its own for each use and step: a training that goes on draws what it would
        have drawn.
        """
        seed = bytes.fromhex(hash_parts(self.seed, use, number))
        return np.random.default_rng(int.from_bytes(seed))


def _hash_content(row: Encoded, subsets: Integers) -> str:
    # With the subsets: another membership is another training.
    return hash_parts(
        np.asarray(row.input_ids, dtype=np.int64).tobytes(),
        np.asarray(row.answer, dtype=np.bool_).tobytes(),
        subsets.tobytes(),
    )


def hash_parts(*parts: object) -> str:
    """SHA-256 of what the parts look like in Python."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
