"""Gradients and views of the benchmarks' rows, made once: audits of any of them are put together
from here.

They depend on the row, the model and its bases alone. Bases and Fisher factors are those of the
background rows, at each layer that an audit measures at. Shards of rows are written as they come,
so that a run may be killed and goes on.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poisonwatch.atomic import replace_file
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.operators import (
    Basis,
    Moments,
    Preconditioner,
    compute_row_gradients,
    fit_bases,
)
from poisonwatch.stride.settings import resolve_further_layers
from poisonwatch.stride.similarity import VIEWS, compute_views

# Elsewhere by the environment: gradients take 150 kB a row.
CACHE = Path(os.environ.get("BENCHMARK_CACHE", Path(__file__).parent / "cache"))
SHARD_ROWS = 128


class RowBank:
    """Gradients G (n, r, D) and views (n, VIEWS, r - 1) of rows by id, at each split of the model,
    on disk.
    """

    def __init__(
        self, pretrained: Pretrained, background: Sequence[Example], stride: StrideConfig
    ) -> None:
        depth = len(find_decoder_blocks(pretrained.model))
        self.layer = depth * 2 // 5 if stride.layer is None else stride.layer
        further = resolve_further_layers(stride, self.layer, depth)
        self.model = FrozenModel(pretrained.model, self.layer, further)
        self.encoder = pretrained.make_encoder(stride.max_tokens)
        self.stride = stride
        ids = hashlib.sha256("".join(row.id for row in background).encode()).hexdigest()[:8]
        layers = "-".join(map(str, (self.layer, *further)))
        self.version = f"{pretrained.fingerprint[:12]}-layers{layers}-r{stride.r}-{ids}"
        self.folder = CACHE / f"bank-{self.version}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, tuple[NDArray[np.float32], NDArray[np.float32], int]] = {}
        for path in sorted(self.folder.glob("*.ids")):
            self._open(path)
        directions = self._get("bases", lambda: self._fit_bases(background))
        self.bases = tuple(map(Basis, directions))
        self.preconditioners = self._fit_factors(background)

    @property
    def basis(self) -> Basis:
        """That of the first split."""
        return self.bases[0]

    @property
    def preconditioner(self) -> Preconditioner:
        """That of the first split."""
        return self.preconditioners[0]

    def _get(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        path = self.folder / f"{name}.pt"
        if not path.exists():
            with replace_file(path) as part:
                torch.save(make(), part)
        found: Tensor = torch.load(path, weights_only=True)
        return found

    def _fit_bases(self, background: Sequence[Example]) -> Tensor:
        encoded = [self.encoder.encode_example(row) for row in background[:256]]
        bases = fit_bases(self.model, encoded, self.stride.r, self.stride.token_budget)
        return torch.stack([basis.directions for basis in bases])

    def _fit_factors(self, background: Sequence[Example]) -> tuple[Preconditioner, ...]:
        path = self.folder / "factors.pt"
        if not path.exists():
            encoded = [self.encoder.encode_example(row) for row in background]
            found = [Moments.zeros(basis.r, self.model.width) for basis in self.bases]
            for batch in make_batches(encoded, self.stride.token_budget):
                splits = self.model.compute_state_gradients(batch).splits
                for moments, basis, at_split in zip(found, self.bases, splits, strict=True):
                    moments += Moments.of_batch(basis, at_split)
            with replace_file(path) as part:
                torch.save([(m.A, m.S, float(m.power), int(m.tokens)) for m in found], part)
        kept = torch.load(path, weights_only=True)
        return tuple(Preconditioner(Moments(*each), self.stride.damping) for each in kept)

    def add(self, rows: Sequence[Example]) -> None:
        """Make what is missing of these rows."""
        missing = {row.id: row for row in rows if row.id not in self._place}
        left = list(missing.values())
        for start in range(0, len(left), SHARD_ROWS):
            self._write(left[start : start + SHARD_ROWS])
            made = min(start + SHARD_ROWS, len(left))
            print(f"gradients: {made} of {len(left)} rows", file=sys.stderr, flush=True)

    def _write(self, rows: Sequence[Example]) -> None:
        splits = len(self.bases)
        G = np.zeros((len(rows), splits, self.basis.r * self.model.width), dtype=np.float32)
        views = np.zeros((len(rows), splits, VIEWS, self.basis.r - 1), dtype=np.float32)
        encoded = [self.encoder.encode_example(row) for row in rows]
        for batch in make_batches(encoded, self.stride.token_budget):
            at = batch.rows.numpy()
            seen = self.model.compute_state_gradients(batch)
            for split, (basis, at_split) in enumerate(zip(self.bases, seen.splits, strict=True)):
                G[at, split] = compute_row_gradients(basis, at_split).flatten(1).numpy()
                views[at, split] = compute_views(basis, at_split.z, batch)
        ids = "\n".join(row.id for row in rows)
        path = self.folder / f"{hashlib.sha256(ids.encode()).hexdigest()[:16]}.ids"
        for kind, array in (("G", G), ("views", views)):
            with replace_file(path.with_suffix(f".{kind}.npy")) as part, part.open("wb") as file:
                np.save(file, array)
        # Last: with it the shard is there.
        with replace_file(path) as part:
            part.write_text(ids)
        self._open(path)

    def _open(self, path: Path) -> None:
        G = np.load(path.with_suffix(".G.npy"), mmap_mode="r")
        views = np.load(path.with_suffix(".views.npy"), mmap_mode="r")
        for place, id in enumerate(path.read_text().split()):
            self._place[id] = G, views, place

    def __contains__(self, row: Example) -> bool:
        return row.id in self._place

    def get_gradients(self, rows: Sequence[Example], split: int = 0) -> Tensor:
        """G (m, r, D) of some rows at a split."""
        found = [self._place[row.id][0][self._place[row.id][2], split] for row in rows]
        return torch.from_numpy(np.stack(found)).view(len(rows), self.basis.r, self.model.width)

    def get_views(self, rows: Sequence[Example], split: int = 0) -> NDArray[np.float32]:
        """Views (m, VIEWS, r - 1) of some rows at a split."""
        return np.stack([self._place[row.id][1][self._place[row.id][2], split] for row in rows])
