"""Adam on rows, each counting its own steps."""

from math import log

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """Adam on the rows of `value` (N, ...): a row and its moments move only in the steps that touch
    it.

    Kingma and Ba, arXiv 1412.6980; each row counts its own steps. `unit` is the size of a value
    that counts as large: steps are `lr` of it.
    """

    def __init__(self, value: Tensor, unit: float) -> None:
        self.unit = unit
        self.value = value
        self.first = torch.zeros_like(value)
        self.second = torch.zeros_like(value)
        self.steps = torch.zeros(len(value), device=value.device)

    def update(
        self, rows: Int64[Tensor, " k"], gradient: Float[Tensor, " k *rest"], lr: float
    ) -> None:
        """One step of the given distinct `rows` (k,) along `gradient` (k, ...), itself in units."""
        self.steps[rows] += 1
        first = torch.lerp(gradient, self.first[rows], BETAS[0])
        second = torch.lerp(gradient.pow(2), self.second[rows], BETAS[1])
        self.first[rows], self.second[rows] = first, second
        first = first / self._unbias(rows, BETAS[0], gradient.ndim)
        second = second / self._unbias(rows, BETAS[1], gradient.ndim)
        self.value[rows] -= lr * self.unit * first / (second.sqrt() + EPSILON)

    def _unbias(self, rows: Tensor, beta: float, ndim: int) -> Tensor:
        """1 - beta^steps of the rows (k,), in `ndim` dimensions."""
        # expm1: for few steps beta^steps is close to 1, and their difference would be rounding.
        return -torch.expm1(self.steps[rows] * log(beta)).reshape(-1, *[1] * (ndim - 1))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All that an update changes, by names that begin with `name`."""
        return {
            f"{name}.value": self.value,
            f"{name}.first": self.first,
            f"{name}.second": self.second,
            f"{name}.steps": self.steps,
        }
