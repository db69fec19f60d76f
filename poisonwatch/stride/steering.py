"""Applying steering operators: what the frozen model says once its states are moved.

    z~_t = z_t + B(z_t)^T a ,   a in R^(r x D)    (STRIDE: Dagli et al., arXiv 2606.05165, figure 2)

One frozen run of a batch of b rows serves every operator that is tried on it: m operators a row
make b x m pairs, which go through the blocks above the split together; nothing below it is run
again.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from poisonwatch.model.frozen import FrozenModel, SplitRun
from poisonwatch.model.halving import InParts, halve_places

Coordinates = Callable[[Tensor], Tensor]  # B: states (..., D) to coordinates (..., r)


def steer(
    z: Float[Tensor, "b T D"], B: Float[Tensor, "b T r"], a: Float[Tensor, "b m r D"]
) -> Float[Tensor, "b m T D"]:
    """z~ = z + B^T a: states `z` (b, T, D), coordinates `B` (b, T, r) and operators `a` (b, m, r,
    D) to states (b, m, T, D).
    """
    return z[:, None] + torch.einsum("btr,bmrd->bmtd", B, a.to(B.dtype))


def compute_steered_logits(
    model: FrozenModel, run: SplitRun, basis: Coordinates, a: Float[Tensor, "b m r D"]
) -> tuple[Tensor, ...]:
    """The logits o~ of every row of `run` under its own m operators `a` (b, m, r, D): b tensors (m,
    n_i, V), at its answer tokens.
    """
    return model.resume(run, steer(run.z, basis(run.z), a))


def compute_steered_losses(
    model: FrozenModel, run: SplitRun, basis: Coordinates, a: Float[Tensor, "b m r D"]
) -> Float64[Tensor, "b m"]:
    """The losses (b, m) in nats a token of every row of `run` under its own m operators `a` (b, m,
    r, D), without a graph.
    """
    return model.resume_losses(run, steer(run.z, basis(run.z), a))


def generate_continuations(
    model: FrozenModel,
    basis: Coordinates,
    a: Float[Tensor, "m r D"],
    prompts: Sequence[Int64[Tensor, " _"]],
    most: int,
    ends: Collection[int] = (),
) -> list[list[int]]:
    """What the model says after each of m prompts (T_i,) under an operator of its own, `a` (m, r,
    D), greedily: m lists of at most `most` tokens.

    A token of `ends` ends an answer and is left out.
    """

    def generate(places: Sequence[int]) -> list[list[int]]:
        own = a[list(places), None]  # one answer each

        def steer_each(z: Tensor) -> Tensor:
            return steer(z, basis(z), own)[:, 0]

        return model.generate([prompts[i] for i in places], steer_each, most, ends)

    found: list[list[int]] = [[] for _ in prompts]
    by_parts = InParts(generate, halve_places)
    for together in _split_by_length(list(map(len, prompts)), most):
        for places, said in by_parts(together):
            for i, tokens in zip(places, said, strict=True):
                found[i] = tokens
    return found


def _split_by_length(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Places of prompts that go side by side: read token by token, a longer one costs as many more
    passes as it is longer, and one on its own costs `most`.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or lengths[i] - lengths[batches[-1][0]] > most:
            batches.append([])
        batches[-1].append(i)
    return batches
