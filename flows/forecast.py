"""What the passes of an audit take on this machine: one batch of its rows goes through the model,
with a clock beside it, and the rest follows from sizes (`stride/costs`).
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from poisonwatch.config import AuditConfig
from poisonwatch.detection.confirmer import MOST_CONFIRMED
from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.errors import ModelError
from poisonwatch.examples import AuditRows, Message
from poisonwatch.flows.pace import Pass
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.cache import get_cache_folder
from poisonwatch.model.effort import START_UP_S
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import InParts, compute_batches
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.screens.frames import find_frame, wear_frame
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.audit_sizes import Tokens, build_audit_shape, count_tokens
from poisonwatch.stride.capacity import Room, measure_room
from poisonwatch.stride.cost_flops import count_gradient_flops
from poisonwatch.stride.cost_shapes import ModelShape
from poisonwatch.stride.costs import Costs, estimate_costs
from poisonwatch.stride.operators import BASIS_ROWS, Basis, compute_row_gradients
from poisonwatch.stride.settings import Settings, measures_rows_alone, resolve_settings

# The pass over groups of flagged rows.
EVIDENCE = "evidence"

# Rows that are tokenised; the tokens of more are judged by these.
MOST_TOKENISED = 2000

# Times as long as on idle processors: then it is said that they are not.
BUSY = 1.5

# Seconds of a batch above which it is not run a second time.
LONG_BATCH_S = 10.0


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Different rows of an audit, those that are `new` and those that are `trusted`."""

    new: int
    trusted: int


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
    framed: int
    tokens: Tokens
    settings: Settings
    costs: Costs
    timed: TimedBatch
    seconds: float
    idle_seconds: float
    seconds_a_group: float
    expected_groups: int
    room: Room
    free_disk: int
    records_folder: Path
    measured_alone: bool

    @property
    def passes(self) -> list[Pass]:
        """The passes of an audit in the order in which they come. The last is over groups of
        flagged rows: `expected_groups`, more than most audits have, so that what is left does not
        grow once they are known.
        """
        audit, flops = self.costs.audit, self.costs.flops
        sampled = audit.known - audit.trusted
        shares = audit.trusted / max(audit.known, 1), sampled / max(audit.known, 1)
        passes = []
        for label, items, amount in (
            ("basis", min(BASIS_ROWS, audit.trusted or audit.sampled), flops.basis),
            ("trusted", audit.trusted, flops.reference * shares[0]),
            ("sample", sampled, flops.reference * shares[1]),
            ("sentinels", audit.answers, flops.sentinels),
            ("fit", audit.n - audit.known, flops.rows),
            ("smoothing", 1, flops.smoothing),
            ("suspects", min(audit.shortlist, audit.n), flops.suspects),
        ):
            seconds = amount / self.timed.flops * self.timed.seconds
            passes.append(Pass(label, items, seconds))
        passes.append(
            Pass(
                EVIDENCE,
                self.expected_groups,
                self.expected_groups * self.seconds_a_group,
                most=MOST_CONFIRMED,
            )
        )
        return passes

    @property
    def measuring_seconds(self) -> float:
        """What the passes take without groups of flagged rows."""
        return sum(each.seconds for each in self.passes if each.label != EVIDENCE)

    @property
    def is_busy(self) -> bool:
        """Whether other programs make it take much longer."""
        return self.timed.seconds > BUSY * self.timed.idle_seconds

    @property
    def peak(self) -> int:
        """The most bytes that are held at once where the model is."""
        memory = self.costs.memory
        return memory.model_peak if self.room.on_gpu else memory.peak


def forecast_passes(
    config: AuditConfig,
    pretrained: Pretrained,
    sentinels: Sequence[Sentinel],
    counts: RowCounts,
    encoded: Sequence[Encoded],
    tokens: Tokens,
    *,
    frame: Sequence[Message] = (),
    loading: float = 0.0,
    once: bool = False,
) -> Forecast:
    """What an audit of so many rows takes, some of which are `encoded`, and most of which begin
    with a `frame`; `loading` the model took so many seconds. A batch is timed twice unless `once`.
    Raises ModelError where no row has an answer, or memory does not hold one.
    """
    stride, n = config.stride, counts.new + counts.trusted
    framed = [each for each in wear_frame(sentinels, frame) if each.framed]
    width = int(pretrained.model.config.get_text_config().hidden_size)
    depth = len(find_decoder_blocks(pretrained.model))
    settings = resolve_settings(stride, depth, width, n)
    model = FrozenModel(pretrained.model, settings.layer, settings.further)
    shape = ModelShape.of_model(model)
    audit = build_audit_shape(
        stride,
        settings,
        pretrained.make_encoder(stride.max_tokens),
        sentinels,
        tokens,
        width=width,
        n=n,
        # Fewer do not stand alone, and are rows like any others.
        trusted=counts.trusted if counts.trusted >= LEAST_TRUSTED else 0,
        framed=framed,
        # As many as there may be.
        probes=config.probes,
    )
    timed = time_batch(model, shape, settings.r, encoded, stride.token_budget, once)
    costs = estimate_costs(shape, audit)
    batches = costs.flops.total / timed.flops
    folder = get_cache_folder() / "work"
    return Forecast(
        new=counts.new,
        trusted=counts.trusted,
        sentinels=len(sentinels),
        framed=len(framed),
        tokens=tokens,
        settings=settings,
        costs=costs,
        timed=timed,
        seconds=START_UP_S + loading + batches * timed.seconds,
        idle_seconds=START_UP_S + batches * timed.idle_seconds,
        seconds_a_group=costs.flops.evidence / timed.flops * timed.seconds,
        # An attack is mostly on one behaviour, and mostly one group.
        expected_groups=min(len({each.panel for each in sentinels}), MOST_CONFIRMED),
        room=measure_room(pretrained.model),
        free_disk=_measure_free_disk(folder),
        records_folder=folder,
        measured_alone=measures_rows_alone(stride, n),
    )


def forecast_rows(
    config: AuditConfig,
    pretrained: Pretrained,
    sentinels: Sequence[Sentinel],
    rows: AuditRows,
) -> Forecast:
    """What an audit of these rows still takes, now that its model is loaded. Raises ModelError as
    `forecast_passes` does.
    """
    n = len(rows.new)
    some = np.unique(np.linspace(0, n - 1, min(MOST_TOKENISED, n)).astype(int)).tolist()
    encoder = pretrained.make_encoder(config.stride.max_tokens)
    examples = [rows.new[i] for i in some]
    encoded = [encoder.encode_example(example) for example in examples]
    counts = RowCounts(new=n, trusted=len(rows.trusted))
    tokens = count_tokens(encoded)
    # once, since the audit goes on at once, and corrects what comes of it
    frame = find_frame(examples)
    return forecast_passes(
        config, pretrained, sentinels, counts, encoded, tokens, frame=frame, once=True
    )


def time_batch(
    model: FrozenModel,
    shape: ModelShape,
    r: int,
    encoded: Sequence[Encoded],
    token_budget: int,
    once: bool = False,
) -> TimedBatch:
    """Gradients of a batch of rows of middling length, twice unless `once`: the first is mostly
    slower. Raises ModelError where no row has an answer, or memory does not hold a single row.
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
        splits = model.compute_state_gradients(part).splits
        return float(sum(compute_row_gradients(basis, each).sum() for each in splits))

    by_parts = compute_batches(sum_gradients)
    seconds, idle_seconds = _time(by_parts, batch, model.device)
    if seconds < LONG_BATCH_S and not once:
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
