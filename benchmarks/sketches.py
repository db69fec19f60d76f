"""Which sketch of a row's gradient finds the rows behind an answer, and at how many bytes a row.

    python benchmarks/sketches.py --data DIR --bank DIR [--rows 4000]

Influence is an inner product of whitened gradients, H = L_A^-1 G L_S^-T / spread. A sketch of H
serves to find the rows whose inner products with a new query are largest; these are then measured
exactly. DIR is as for `cases.py`; the gradients are those of `row_bank.py`.

Queries are the sentinels of all cases, and rows' own answers, each against all other rows. Printed
for every sketch: bytes a row, the standard deviation of its error in background standard
deviations, and the share of the exact top 10 and 50 that is among its first 100 and 500; with
rows' values as they are and smoothed over neighbours, as `explain` ranks them.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import row_bank
import torch
from row_bank import RowBank
from torch import Tensor

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import read_source
from poisonwatch.stride.background import Background
from poisonwatch.stride.queries import QuerySpace, prepare_queries
from poisonwatch.stride.similarity import compute_features

ROW_QUERIES = 100
BACKGROUND = 512
AT_ONCE = 256
RECALLS = ((10, 50), (10, 100), (50, 100), (10, 500), (50, 500), (100, 500), (100, 2000))


@dataclass(frozen=True)
class Whitened:
    """H of the rows (n, r, D) and of the queries (Q, r, D), in the factors' eigenbases, and how much
    of it lies along each pair of these: `expected` (r, D) by the factors, `seen` (r, D) in the
    background.
    """

    rows: Tensor
    queries: Tensor
    expected: Tensor
    seen: Tensor


# Whitened gradients to scores (Q, n) by a sketch.
Sketch = Callable[[Whitened], Tensor]


def read_rows(path: Path) -> list[Example]:
    found = []
    for row, draft in read_source(SourceConfig(path=str(path))):
        example = draft.to_example(row)
        if example is not None:
            found.append(example)
    return found


def whiten(bank: RowBank, G: Tensor) -> Tensor:
    """H (m, r, D): in the eigenbasis, where the damped factors are diagonal."""
    U_A, U_S, e_A, e_S = decompose(bank)
    return torch.einsum("ra,mrd,ds->mas", U_A * e_A.rsqrt(), G, U_S * e_S.rsqrt())


def decompose(bank: RowBank) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eigenvectors and damped eigenvalues of both factors, largest first."""
    moments = bank.preconditioner.moments
    found = []
    for factor in (moments.A / moments.tokens, moments.S / moments.tokens):
        values, vectors = torch.linalg.eigh(factor.double())
        ridge = bank.stride.damping * factor.diagonal().mean()
        found.append((vectors.flip(1).float(), (values.flip(0) + ridge).float()))
    (U_A, e_A), (U_S, e_S) = found
    return U_A, U_S, e_A, e_S


def quantise(x: Tensor, bits: int) -> Tensor:
    """x (m, s) as it comes back from `bits` a number, with one scale a row."""
    if bits >= 32:
        return x
    if bits == 16:
        return x.half().float()
    if bits == 1:
        return x.sign() * x.abs().mean(dim=1, keepdim=True)
    most = 2 ** (bits - 1) - 1
    # Few bits are too few for the largest number: what lies beyond is clipped.
    spread = x.abs().amax(dim=1, keepdim=True)
    if bits < 8:
        spread = x.pow(2).mean(dim=1, keepdim=True).sqrt() * {4: 2.9, 2: 1.2}[bits]
    scale = spread.clamp_min(1e-30) / most
    return (x / scale).round().clamp(-most, most) * scale


def project(project_rows: Callable[[Tensor], Tensor], bits: int) -> Sketch:
    """Scores by a linear map of H (m, r, D) to (m, s): rows are quantised, queries are not."""

    def score(whitened: Whitened) -> Tensor:
        queries = project_rows(whitened.queries)
        blocks = []
        for some in whitened.rows.split(AT_ONCE):
            blocks.append(queries @ quantise(project_rows(some), bits).T)
        return torch.cat(blocks, dim=1)

    return score


def count_sketch(r: int, D: int, s: int) -> Callable[[Tensor], Tensor]:
    """Every number is added to one of s sums, with a random sign (Charikar et al., 2002)."""
    draw = torch.Generator().manual_seed(0)
    place = torch.randint(s, (r * D,), generator=draw)
    sign = torch.randint(2, (r * D,), generator=draw).float() * 2 - 1
    return lambda H: torch.zeros(len(H), s).index_add(1, place, H.flatten(1) * sign)


def rotate(x: Tensor, sign: Tensor) -> Tensor:
    """A random rotation of x (m, s), s a power of two: random signs, then Walsh and Hadamard."""
    m, s = x.shape
    x = x * sign
    width = 1
    while width < s:
        pairs = x.view(m, s // (2 * width), 2, width)
        x = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], dim=2)
        x = x.reshape(m, s)
        width *= 2
    return x / s**0.5


def hadamard(r: int, D: int, s: int) -> Callable[[Tensor], Tensor]:
    """A subsampled random rotation (SRHT; Ailon and Chazelle, 2006) to s numbers."""
    draw = torch.Generator().manual_seed(0)
    full = 2 ** (r * D - 1).bit_length()
    sign = torch.randint(2, (full,), generator=draw).float() * 2 - 1
    kept = torch.randperm(full, generator=draw)[:s]

    def apply(H: Tensor) -> Tensor:
        padded = torch.zeros(len(H), full)
        padded[:, : r * D] = H.flatten(1)
        return rotate(padded, sign)[:, kept] * (full / s) ** 0.5

    return apply


def two_sided(r: int, D: int, left: int, right: int) -> Callable[[Tensor], Tensor]:
    """L H R with random L (left, r) and R (D, right), as in LoGra (arXiv 2405.13954)."""
    draw = torch.Generator().manual_seed(0)
    L = torch.randn(left, r, generator=draw) / left**0.5
    R = torch.randn(D, right, generator=draw) / right**0.5
    return lambda H: (L @ H @ R).flatten(1)


def leading(energy: Tensor, s: int) -> Callable[[Tensor], Tensor]:
    """The s numbers of H, in the factors' eigenbases, in which gradients have most."""
    kept = energy.flatten().argsort(descending=True)[:s]
    return lambda H: H.flatten(1)[:, kept]


def low_rank(rank: int, left: int, right: int, bits: int) -> Sketch:
    """`rank` singular pairs of every row's H, of its leading `left` x `right` (LoRIF; arXiv
    2601.21929).
    """

    def score(whitened: Whitened) -> Tensor:
        queries = whitened.queries[:, :left, :right]
        blocks = []
        for some in whitened.rows.split(AT_ONCE):
            some = some[:, :left, :right]
            u = torch.linalg.eigh(some @ some.mT).eigenvectors[:, :, -rank:]
            v = u.mT @ some
            u = quantise(u.mT.reshape(-1, left), bits).view(-1, rank, left)
            v = quantise(v.reshape(-1, right), bits).view(-1, rank, right)
            blocks.append(queries.flatten(1) @ (u.mT @ v).flatten(1).T)
        return torch.cat(blocks, dim=1)

    return score


def largest(count: int, bits: int) -> Sketch:
    """The `count` largest numbers of every row's H, and where they stand."""

    def score(whitened: Whitened) -> Tensor:
        queries = whitened.queries.flatten(1)
        blocks = []
        for some in whitened.rows.flatten(1).split(AT_ONCE):
            places = some.abs().topk(count, dim=1).indices
            values = quantise(some.gather(1, places), bits)
            blocks.append(queries @ torch.zeros_like(some).scatter(1, places, values).T)
        return torch.cat(blocks, dim=1)

    return score


def list_sketches(whitened: Whitened) -> Iterator[tuple[str, float, Sketch]]:
    """Name, bytes a row, and sketch."""
    _, r, D = whitened.rows.shape
    for rank, right in ((1, D), (2, D), (4, D), (6, D), (8, D), (2, 384), (4, 192), (8, 192)):
        for bits in (8, 4):
            size = rank * (r + right) * bits / 8
            yield f"rank {rank} of {r} x {right}", size, low_rank(rank, r, right, bits)
    for s in (1024, 4096, 16384):
        for bits in (8, 4):
            map = leading(whitened.seen, s)
            yield f"leading {s}, seen", s * bits / 8, project(map, bits)
        yield f"leading {s}, expected", s, project(leading(whitened.expected, s), 8)
        for bits in (16, 8):
            yield f"count sketch {s}", s * bits / 8, project(count_sketch(r, D, s), bits)
    for left, right in ((16, 64), (32, 128), (64, 256)):
        map = two_sided(r, D, left, right)
        yield f"two-sided random {left} x {right}", left * right, project(map, 8)
    # Two bytes a place, and what of the value is kept.
    for count in (256, 1024):
        yield f"largest {count}", count * 2.5, largest(count, 4)
    for bits in (8, 4):
        yield "exact", r * D * bits / 8, project(lambda H: H.flatten(1), bits)
    for s, bits in ((1024, 8), (4096, 8), (16384, 8), (16384, 1), (32768, 1)):
        yield f"SRHT {s}", s * bits / 8, project(hadamard(r, D, s), bits)


@dataclass(frozen=True)
class Ranked:
    """What is compared: exact values (Q, n) of the queries, and which row is a query's own."""

    exact: Tensor
    own: Tensor  # (Q,), -1 for none

    def compare(self, found: Tensor) -> list[float]:
        """For each of RECALLS, the mean share of the exact top that is among the first."""
        shares: list[list[float]] = [[] for _ in RECALLS]
        for exact, sketched, own in zip(self.exact, found, self.own.tolist(), strict=True):
            a, b = exact.clone(), sketched.clone()
            if own >= 0:
                a[own] = b[own] = -torch.inf
            order, best = b.argsort(descending=True), a.argsort(descending=True)
            for place, (top, first) in enumerate(RECALLS):
                hits = torch.isin(best[:top], order[:first]).float().mean()
                shares[place].append(float(hits))
        return [float(np.mean(share)) for share in shares]


def load_queries(bank: RowBank, data: Path) -> Tensor:
    """The gradients (Q, r, D) of the sentinels of all cases; kept on disk."""
    path = bank.folder / "sentinels.pt"
    if not path.exists():
        space = QuerySpace(bank.model, bank.encoder, bank.basis)
        sentinels = load_sentinels([str(path) for path in sorted(data.glob("*/sentinels.yaml"))])
        torch.save(prepare_queries(space, sentinels, bank.stride)[1].G, path)
    found: Tensor = torch.load(path, weights_only=True)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bank", type=Path, default=row_bank.CACHE)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of sketches' names")
    options = parser.parse_args()
    row_bank.CACHE = options.bank
    background = read_rows(options.data / "background.jsonl")
    bank = RowBank(load_pretrained(ModelConfig()), background, StrideConfig())
    of_sentinels = load_queries(bank, options.data)
    paths = [*sorted(options.data.glob("*/*.jsonl")), *sorted(options.data.glob("*.jsonl"))]
    known: dict[str, Example] = {}
    for path in paths:
        for row in read_rows(path) if path.stat().st_size else []:
            if row in bank:
                known[row.id] = row
    # The background first: its rows are the ordinary conversations.
    rows = [row for row in background if row in bank]
    rows += [row for row in known.values() if row.id not in {b.id for b in background}]
    rows = rows[: options.rows]
    measure(bank, rows, of_sentinels, tuple(options.only))


def measure(
    bank: RowBank, rows: list[Example], of_sentinels: Tensor, only: tuple[str, ...]
) -> None:
    """Print the table for these rows, of sketches whose names begin so."""
    n = len(rows)
    sample = bank.get_gradients(rows[:BACKGROUND])
    behind = Background.from_gradients(sample, bank.preconditioner, np.ones(len(sample)))
    _, _, e_A, e_S = decompose(bank)
    H = torch.empty(n, bank.basis.r, bank.model.width)
    centre = torch.empty(n)
    for start in range(0, n, AT_ONCE):
        G = bank.get_gradients(rows[start : start + AT_ONCE])
        own = torch.arange(start, start + len(G))
        own[own >= len(sample)] = -1
        mean, spread = behind.measure(G, own)
        H[start : start + len(G)] = whiten(bank, G) / spread[:, None, None].float()
        centre[start : start + len(G)] = (mean / spread).float()
    chosen = torch.from_numpy(np.random.default_rng(0).choice(n, min(n, ROW_QUERIES), False))
    G_q = torch.cat([of_sentinels, bank.get_gradients([rows[i] for i in chosen.tolist()])])
    lengths = G_q.flatten(1).norm(dim=1)[:, None, None]
    # What of a token's variance lies along a whitened direction: the rest is damping.
    damping = bank.stride.damping / (1 + bank.stride.damping)
    of_A, of_S = 1 - damping * e_A.mean() / e_A, 1 - damping * e_S.mean() / e_S
    whitened = Whitened(
        rows=H,
        queries=whiten(bank, G_q) / lengths,
        expected=of_A[:, None] * of_S,
        seen=H[: len(sample)].pow(2).mean(dim=0),
    )
    features = compute_features(bank.get_views(rows))
    smoother = compute_smoother(features, find_neighbours(features), np.ones(n))
    own_row = torch.cat([torch.full((len(of_sentinels),), -1), chosen])

    def smooth(y: Tensor) -> Tensor:
        return torch.from_numpy(smoother @ (y - centre).T.numpy()).T

    y = whitened.queries.flatten(1) @ H.flatten(1).T
    plain, smoothed = Ranked(y - centre, own_row), Ranked(smooth(y), own_row)
    print(f"{n} rows, {len(of_sentinels)} sentinel queries, {len(chosen)} queries of rows")
    print(
        f"standard deviation of exact values: {float(y.std()):.2f}, smoothed "
        f"{float(smoothed.exact.std()):.2f}"
    )
    heads = [f"{top}@{first}" for top, first in RECALLS]
    print(
        "| sketch | bytes a row | error | smoothed |",
        " | ".join(heads),
        "| smoothed",
        " | smoothed ".join(heads),
        "|",
    )
    for name, size, sketch in list_sketches(whitened):
        if not name.startswith(only):
            continue
        found = sketch(whitened)
        error = float((found - y).std())
        after = float((smooth(found) - smoothed.exact).std())
        numbers = [*plain.compare(found - centre), *smoothed.compare(smooth(found))]
        print(
            f"| {name} | {size:.0f} | {error:.3f} | {after:.3f} |",
            " | ".join(f"{number:.3f}" for number in numbers),
            "|",
            flush=True,
        )


if __name__ == "__main__":
    main()
