"""What an audit would take, before it is begun: `poisonwatch audit --dry-run`.

Rows are read as `check` reads them, some are tokenised, and one batch of them goes through the real
model, with a clock beside it. No ledger is opened and no row is pulled into one.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from poisonwatch.config import AuditConfig
from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.errors import ModelError, SourceError
from poisonwatch.examples import Example
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.effort import START_UP_S
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.files import get_cache_folder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import InParts, compute_batches
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.progress import Progress
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.sources.survey import (
    TEMPLATE_TOKENS,
    Survey,
    estimate_row_tokens,
    survey_source,
)
from poisonwatch.stride.audit_sizes import Tokens, build_audit_shape, count_tokens
from poisonwatch.stride.capacity import Room, measure_room
from poisonwatch.stride.cost_flops import count_gradient_flops
from poisonwatch.stride.cost_shapes import ModelShape
from poisonwatch.stride.costs import Costs, estimate_costs
from poisonwatch.stride.operators import Basis, compute_row_gradients
from poisonwatch.stride.settings import Settings, measures_rows_alone, resolve_settings

# Rows that are tokenised; the tokens of more are judged by these.
MOST_TOKENISED = 2000

# Seconds of a batch above which it is not run a second time.
LONG_BATCH_S = 10.0


class Waiting(Protocol):
    """What a person sees meanwhile."""

    @property
    def progress(self) -> Progress: ...
    def waiting(self, text: str) -> AbstractContextManager[object]: ...


@dataclass(frozen=True, slots=True)
class TimedBatch:
    """A batch of `rows` that took `seconds`, and would take `idle_seconds` where nothing else runs;
    `flops` are its operations, by formula.
    """

    rows: int
    seconds: float
    idle_seconds: float
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an audit would take. `seconds` are those of an audit that flags nothing, on this machine
    as busy as it is (`idle_seconds`: where nothing else runs), and `seconds_a_group` come on top
    for each group of flagged rows; `room` is the memory that is free, `free_disk` the disk's, in
    bytes.
    """

    new: int
    trusted: int
    sentinels: int
    tokens: Tokens
    settings: Settings
    costs: Costs
    timed: TimedBatch
    seconds: float
    idle_seconds: float
    seconds_a_group: float
    room: Room
    free_disk: int
    records_folder: Path
    measured_alone: bool

    @property
    def peak(self) -> int:
        """The most bytes that are held at once where the model is."""
        memory = self.costs.memory
        return memory.model_peak if self.room.on_gpu else memory.peak


def forecast_audit(config: AuditConfig, page: Waiting) -> Forecast:
    """What an audit of all rows of the source would take on this machine, as it is now."""
    stride = config.stride
    survey = survey_source(config.source, stride.max_tokens, samples=0, progress=page.progress)
    new, examples = _count_rows(survey, config.source.address), _list_examples(survey)
    trusted = 0
    if config.reference is not None and config.reference_rows:
        most = config.reference_rows
        reference = survey_source(config.reference, stride.max_tokens, samples=0, most_rows=most)
        trusted = _count_rows(reference, config.reference.address)
    sentinels = load_sentinels(config.sentinels)
    with page.waiting("loading the model ..."):
        started = time.perf_counter()
        pretrained = load_pretrained(config.model)
        loading = time.perf_counter() - started
    width = int(pretrained.model.config.get_text_config().hidden_size)
    depth = len(find_decoder_blocks(pretrained.model))
    settings = resolve_settings(stride, depth, width, new + trusted)
    model = FrozenModel(pretrained.model, settings.layer)
    encoder = pretrained.make_encoder(stride.max_tokens)
    with page.waiting("tokenising some rows ..."):
        encoded = [encoder.encode_example(row) for row in examples]
        tokens = count_tokens(encoded)
        if survey.complete > len(examples):
            tokens = _extrapolate(tokens, survey, examples, stride.max_tokens)
    shape = ModelShape.of_model(model)
    audit = build_audit_shape(
        stride,
        settings,
        encoder,
        sentinels,
        tokens,
        width=width,
        n=new + trusted,
        # Fewer do not stand alone, and are rows like any others.
        trusted=trusted if trusted >= LEAST_TRUSTED else 0,
        # As many as there may be.
        probes=config.probes,
    )
    with page.waiting("timing one batch ..."):
        timed = time_batch(model, shape, settings.r, encoded, stride.token_budget)
    costs = estimate_costs(shape, audit)
    batches = costs.flops.total / timed.flops
    folder = get_cache_folder() / "work"
    return Forecast(
        new=new,
        trusted=trusted,
        sentinels=len(sentinels),
        tokens=tokens,
        settings=settings,
        costs=costs,
        timed=timed,
        seconds=START_UP_S + loading + batches * timed.seconds,
        idle_seconds=START_UP_S + batches * timed.idle_seconds,
        seconds_a_group=costs.flops.evidence / timed.flops * timed.seconds,
        room=measure_room(pretrained.model),
        free_disk=_measure_free_disk(folder),
        records_folder=folder,
        measured_alone=measures_rows_alone(stride, new + trusted),
    )


def _count_rows(survey: Survey, address: str) -> int:
    """Different rows that became conversations. Raises SourceError where a file cannot be read, or
    there are none.
    """
    if survey.problems:
        raise SourceError(survey.problems[0])
    if not survey.complete:
        raise SourceError(
            f"{address} holds no row that is a whole conversation: `poisonwatch check` says why"
        )
    return max(survey.complete - survey.copies - survey.variants, 1)


def _list_examples(survey: Survey) -> list[Example]:
    """At most MOST_TOKENISED of the rows that were kept, evenly spread."""
    kept = []
    for row, draft in survey.kept:
        example = draft.to_example(row)
        if example is not None:
            kept.append(example)
    if len(kept) <= MOST_TOKENISED:
        return kept
    return [kept[i] for i in np.linspace(0, len(kept) - 1, MOST_TOKENISED).astype(int).tolist()]


def _extrapolate(
    tokens: Tokens, survey: Survey, examples: Sequence[Example], max_tokens: int
) -> Tokens:
    """The tokens of all rows, from the characters of all and what those of some came to: rows that
    come later may be longer.
    """
    judged = 0
    for example in examples:
        for messages in (example.messages, example.rejected):
            if messages:
                judged += min(estimate_row_tokens(messages) + TEMPLATE_TOKENS, max_tokens)
    found = tokens.mean * len(examples) / max(judged, 1)
    return replace(tokens, mean=found * survey.tokens.audited / survey.complete)


def time_batch(
    model: FrozenModel, shape: ModelShape, r: int, encoded: Sequence[Encoded], token_budget: int
) -> TimedBatch:
    """Gradients of a batch of rows of middling length, once or twice: the first is mostly slower.
    Raises ModelError where no row has an answer, or memory does not hold a single row.
    """
    answered = [row for row in encoded if _has_answers(row)]
    if not answered:
        raise ModelError(
            "no row has assistant tokens left: raise stride.max_tokens, or look at the rows"
        )
    batches = list(make_batches(answered, token_budget, model.device))
    batch = batches[len(batches) // 2]
    # Any directions do: what is computed along them takes as long.
    basis = Basis(torch.eye(model.width, device=model.device)[:, : r - 1].contiguous())

    def sum_gradients(part: Batch) -> float:
        return float(compute_row_gradients(basis, model.compute_state_gradients(part)).sum())

    by_parts = compute_batches(sum_gradients)
    seconds, idle_seconds = _time(by_parts, batch, model.device)
    if seconds < LONG_BATCH_S:
        seconds, idle_seconds = min((seconds, idle_seconds), _time(by_parts, batch, model.device))
    conversations, width = batch.input_ids.shape
    share = float(batch.answer.sum()) / batch.answer.numel()
    flops = count_gradient_flops(shape, r, conversations * width, width, share)
    return TimedBatch(len(batch.rows), seconds, idle_seconds, flops)


def _has_answers(row: Encoded) -> bool:
    conversations = [row] if row.against is None else [row, row.against]
    return all(bool(each.answer[1:].any()) for each in conversations)


def _time(
    by_parts: InParts[Batch, float], batch: Batch, device: torch.device
) -> tuple[float, float]:
    """Seconds until a batch's numbers are there, on a GPU too; and what they would be if the
    threads that computed them had not waited for processors.
    """
    started, used = time.perf_counter(), time.process_time()
    for _ in by_parts(batch):
        pass
    seconds, used = time.perf_counter() - started, time.process_time() - used
    if device.type != "cpu":
        return seconds, seconds
    return seconds, min(seconds, used / torch.get_num_threads())


def _measure_free_disk(folder: Path) -> int:
    """What is free on the disk where a folder is, or would be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
