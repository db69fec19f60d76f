"""Gradients and views of the benchmarks' rows, made once: audits of any of them are put together
from here.

They depend on the row, the model and the basis alone. Basis and Fisher factors are those of the
background rows. Shards of rows are written as they come, so that a run may be killed and goes on.
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
    fit_basis,
)
from poisonwatch.stride.similarity import VIEWS, compute_views

# Elsewhere by the environment: gradients take 150 kB a row.
CACHE = Path(os.environ.get("BENCHMARK_CACHE", Path(__file__).parent / "cache"))
SHARD_ROWS = 128


class RowBank:
    """Gradients G (n, r, D) and views (n, VIEWS, r - 1) of rows by id, on disk."""

    def __init__(
        self, pretrained: Pretrained, background: Sequence[Example], stride: StrideConfig
    ) -> None:
        depth = len(find_decoder_blocks(pretrained.model))
        self.layer = depth * 2 // 5 if stride.layer is None else stride.layer
        self.model = FrozenModel(pretrained.model, self.layer)
        self.encoder = pretrained.make_encoder(stride.max_tokens)
        self.stride = stride
        ids = hashlib.sha256("".join(row.id for row in background).encode()).hexdigest()[:8]
        self.version = f"{pretrained.fingerprint[:12]}-layer{self.layer}-r{stride.r}-{ids}"
        self.folder = CACHE / f"bank-{self.version}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, tuple[NDArray[np.float32], NDArray[np.float32], int]] = {}
        for path in sorted(self.folder.glob("*.ids")):
            self._open(path)
        self.basis = Basis(self._get("basis", lambda: self._fit_basis(background)))
        self.preconditioner = self._fit_factors(background)

    def _get(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        path = self.folder / f"{name}.pt"
        if not path.exists():
            with replace_file(path) as part:
                torch.save(make(), part)
        found: Tensor = torch.load(path, weights_only=True)
        return found

    def _fit_basis(self, background: Sequence[Example]) -> Tensor:
        encoded = [self.encoder.encode_example(row) for row in background[:256]]
        return fit_basis(self.model, encoded, self.stride.r, self.stride.token_budget).directions

    def _fit_factors(self, background: Sequence[Example]) -> Preconditioner:
        path = self.folder / "factors.pt"
        if not path.exists():
            moments = Moments.zeros(self.basis.r, self.model.width)
            encoded = [self.encoder.encode_example(row) for row in background]
            for batch in make_batches(encoded, self.stride.token_budget):
                moments += Moments.of_batch(self.basis, self.model.compute_state_gradients(batch))
            with replace_file(path) as part:
                torch.save((moments.A, moments.S, float(moments.power), int(moments.tokens)), part)
        A, S, power, tokens = torch.load(path, weights_only=True)
        return Preconditioner(Moments(A, S, power, tokens), self.stride.damping)

    def add(self, rows: Sequence[Example]) -> None:
        """Make what is missing of these rows."""
        missing = {row.id: row for row in rows if row.id not in self._place}
        left = list(missing.values())
        for start in range(0, len(left), SHARD_ROWS):
            self._write(left[start : start + SHARD_ROWS])
            made = min(start + SHARD_ROWS, len(left))
            print(f"gradients: {made} of {len(left)} rows", file=sys.stderr, flush=True)

    def _write(self, rows: Sequence[Example]) -> None:
        G = np.zeros((len(rows), self.basis.r * self.model.width), dtype=np.float32)
        views = np.zeros((len(rows), VIEWS, self.basis.r - 1), dtype=np.float32)
        encoded = [self.encoder.encode_example(row) for row in rows]
        for batch in make_batches(encoded, self.stride.token_budget):
            seen = self.model.compute_state_gradients(batch)
            at = batch.rows.numpy()
            G[at] = compute_row_gradients(self.basis, seen).flatten(1).numpy()
            views[at] = compute_views(self.basis, seen.z, batch)
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

    def get_gradients(self, rows: Sequence[Example]) -> Tensor:
        """G (m, r, D) of some rows."""
        found = [self._place[row.id][0][self._place[row.id][2]] for row in rows]
        return torch.from_numpy(np.stack(found)).view(len(rows), self.basis.r, self.model.width)

    def get_views(self, rows: Sequence[Example]) -> NDArray[np.float32]:
        """Views (m, VIEWS, r - 1) of some rows."""
        return np.stack([self._place[row.id][1][self._place[row.id][2]] for row in rows])
