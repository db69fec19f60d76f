"""One fit to be made: the rows, the model, and what is known before any pass over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poisonwatch.arrays import RowIndices
from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, SelectedExamples
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.progress import Progress, silent
from poisonwatch.stride.records import RecordStore
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.settings import Settings, resolve_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class FitProblem:
    """What any fit starts from.

    `order` (n,) are all rows as drawn by seed, and `ordinary` those of them from whose beginning
    the `sample` of ordinary conversations is taken; `trusted` are the rows whose statistics are
    kept for the next fit, if any. What an interrupted fit left in the `store` is not passed over
    again; a training keeps its state in the file `training_checkpoint`. Gradients that are kept
    are kept at the further layers, too, where it is to `keep_further`.
    """

    pretrained: Pretrained
    model: FrozenModel
    encoder: ChatEncoder
    rows: Sequence[Example]
    ids: tuple[str, ...]
    settings: Settings
    stride: StrideConfig
    seed: int
    order: RowIndices
    ordinary: RowIndices
    trusted: RowIndices | None
    store: CheckpointStore
    progress: Progress
    training_checkpoint: Path | None
    keep_further: bool = False

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def sample(self) -> RowIndices:
        """The rows (b,) that serve as ordinary conversations, unless they cannot be measured."""
        return self.ordinary[: self.stride.background]

    def draw_sample(self, faulty: RowIndices) -> RowIndices:
        """The sample (b,) without the rows that are `faulty` (f,); others are drawn in their
        place.
        """
        measurable = self.ordinary[~np.isin(self.ordinary, faulty)]
        return measurable[: self.stride.background]

    def encode(self, rows: RowIndices) -> list[Encoded]:
        """The rows (m,) as the model reads them."""
        return [self.encoder.encode_example(self.rows[i]) for i in rows.tolist()]

    def select(self, rows: RowIndices) -> "FitProblem":
        """The same of the rows (m,) alone, numbered anew; itself where these are all."""
        if len(rows) == self.n:
            return self
        number = np.full(self.n, -1)
        number[rows] = np.arange(len(rows))
        trusted = None
        if self.trusted is not None:
            trusted = number[np.intersect1d(self.trusted, rows)]
        return prepare_problem(
            self.pretrained,
            SelectedExamples.of(self.rows, rows.tolist()),
            self.stride,
            seed=self.seed,
            progress=self.progress,
            training_checkpoint=self.training_checkpoint,
            ordinary=number[np.intersect1d(self.ordinary, rows)],
            trusted=trusted,
            store=self.store,
        )

    def get_ids(self, rows: RowIndices) -> list[str]:
        """The ids of the rows (m,)."""
        return [self.ids[i] for i in rows.tolist()]

    def open_records(self) -> RecordStore:
        """Where the pass's records go: beside the checkpoints, or where all machines see them. They
        go away with the checkpoints.
        """
        return RecordStore(self.store.records)

    def encode_all(self) -> tuple[Encoded, ...]:
        """All rows as the model reads them: for fits that need them more than once."""
        return tuple(map(self.encoder.encode_example, self.rows))


def prepare_problem(
    pretrained: Pretrained,
    examples: Sequence[Example],
    stride: StrideConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
    training_checkpoint: Path | None = None,
    ordinary: RowIndices | None = None,
    trusted: RowIndices | None = None,
    store: CheckpointStore | None = None,
    keep_further: bool = False,
) -> FitProblem:
    """Resolve the settings, and draw the sample from the rows `ordinary`, by
    default from all.

    Raises ConfigError where settings make no sense, ModelError where the model has no such layer.
    """
    width = int(pretrained.model.config.get_text_config().hidden_size)
    depth = len(find_decoder_blocks(pretrained.model))
    known = None
    # The gradients of all trusted rows are held during a fit that keeps operators.
    if trusted is not None:
        known = min(len(examples), len(trusted) + stride.background)
    settings = resolve_settings(stride, depth, width, len(examples), known)
    ids = _list_ids(examples)
    order = draw_order(ids, seed)
    among = order
    if ordinary is not None:
        among = order[np.isin(order, ordinary)]
    return FitProblem(
        pretrained=pretrained,
        model=FrozenModel(pretrained.model, settings.layer, settings.further),
        encoder=pretrained.make_encoder(stride.max_tokens),
        rows=examples,
        ids=ids,
        settings=settings,
        stride=stride,
        seed=seed,
        order=order,
        ordinary=among,
        trusted=trusted,
        store=store or CheckpointStore(),
        progress=progress,
        training_checkpoint=training_checkpoint,
        keep_further=keep_further,
    )


def _list_ids(examples: Sequence[Example]) -> tuple[str, ...]:
    """The rows' ids; of packed rows without making an example of each."""
    if isinstance(examples, PackedExamples):
        return examples.ids
    return tuple(example.id for example in examples)
