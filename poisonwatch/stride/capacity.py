"""Whether an audit fits into the memory that is free, and what to change where it does not: said
before the pass over the rows begins, not hours later by the system.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedModel

from poisonwatch.errors import ConfigError
from poisonwatch.model.devices import find_input_device
from poisonwatch.model.free_memory import measure_free_main_memory, measure_free_memory
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.audit_sizes import build_audit_shape, count_tokens
from poisonwatch.stride.cost_memory import Memory, estimate_memory
from poisonwatch.stride.cost_shapes import AuditShape, ModelShape
from poisonwatch.stride.costs import format_bytes
from poisonwatch.stride.problem import FitProblem

# Rows that are tokenised for an estimate of all rows' tokens.
SAMPLED = 256

# What may be set lower, in steps of a half.
LEAST_BUDGET, LEAST_R, LEAST_GB = 64, 8, 0.1

GB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Bytes of memory that are free: where the `model` is, whose weights count as free, and in
    `main` memory. The same where the model is in main memory, or not `on_gpu`.
    """

    model: int
    main: int
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Remedy:
    """A `setting` that makes an audit smaller, and the sizes with it."""

    setting: str
    model: ModelShape
    audit: AuditShape


def measure_room(model: PreTrainedModel) -> Room:
    """What is free on this machine with the model loaded."""
    device = find_input_device(model)
    on_gpu = device.type == "cuda"
    weights = sum(weight.nbytes for weight in model.parameters())
    main = measure_free_main_memory()
    if not on_gpu:
        return Room(model=main + weights, main=main + weights, on_gpu=False)
    return Room(model=measure_free_memory(device) + weights, main=main, on_gpu=True)


def require_memory(problem: FitProblem, sentinels: Sequence[Sentinel]) -> None:
    """Raises ConfigError, in one line with what to change, where a fit takes more memory than is
    free.
    """
    model = problem.pretrained.model
    shape = ModelShape.of_model(problem.model)
    some = np.unique(np.linspace(0, problem.n - 1, min(SAMPLED, problem.n)).astype(np.int64))
    audit = build_audit_shape(
        problem.stride,
        problem.settings,
        problem.encoder,
        sentinels,
        count_tokens(problem.encode(some)),
        width=problem.model.width,
        n=problem.n,
        trusted=0 if problem.trusted is None else len(problem.trusted),
    )
    shortage = describe_shortage(shape, audit, measure_room(model))
    if shortage is not None:
        raise ConfigError(shortage)


def describe_shortage(model: ModelShape, audit: AuditShape, room: Room) -> str | None:
    """What an audit takes more than is free, and what to change to what; None where it fits."""
    memory = estimate_memory(model, audit)
    if _fits(memory, room):
        return None
    if room.on_gpu and memory.model_peak <= room.model:
        return (
            f"verdicts of {audit.n:,} rows take about {format_bytes(memory.main_peak)} of main "
            f"memory, and {format_bytes(room.main)} are free: audit fewer rows at a time, or set "
            "stride.r lower"
        )
    peak = memory.model_peak if room.on_gpu else memory.peak
    where = "of the GPU's memory" if room.on_gpu else "of memory"
    return (
        f"this audit takes about {format_bytes(peak)} {where} ({format_bytes(memory.weights)} for "
        f"the model, {format_bytes(memory.batch)} for a batch, {format_bytes(memory.gradients)} "
        f"for gradients), and {format_bytes(room.model)} are free: {_advise(model, audit, room)}"
    )


def _fits(memory: Memory, room: Room) -> bool:
    if room.on_gpu:
        return memory.model_peak <= room.model and memory.main_peak <= room.main
    return memory.peak <= room.model


def _advise(model: ModelShape, audit: AuditShape, room: Room) -> str:
    """Single settings that suffice; else as many together as it takes."""
    single = []
    for lower in WAYS:
        for remedy in lower(model, audit):
            if _fits(estimate_memory(remedy.model, remedy.audit), room):
                single.append(remedy.setting)
                break
    if single:
        return f"set {', or '.join(single)}"
    together = []
    for lower in WAYS:
        for remedy in list(lower(model, audit))[-1:]:
            model, audit = remedy.model, remedy.audit
            together.append(remedy.setting)
        if _fits(estimate_memory(model, audit), room):
            return f"set {', '.join(together)} together"
    if room.on_gpu:
        return "take a smaller model, or set model.device_map: auto, which uses all GPUs together"
    return "take a smaller model, or a machine with more memory"


def _lower_budget(model: ModelShape, audit: AuditShape) -> Iterator[Remedy]:
    """Batches of fewer tokens, down to a row each."""
    budget = 1 << (audit.token_budget.bit_length() - 1)
    while budget >= max(LEAST_BUDGET, audit.longest):
        if budget < audit.token_budget:
            smaller = replace(audit, token_budget=budget)
            yield Remedy(f"stride.token_budget: {budget}", model, smaller)
        budget //= 2


def _measure_one_layer(model: ModelShape, audit: AuditShape) -> Iterator[Remedy]:
    """No further layers."""
    if model.further:
        yield Remedy("stride.further_layers: []", replace(model, further=()), audit)


def _lower_r(model: ModelShape, audit: AuditShape) -> Iterator[Remedy]:
    """A basis of fewer dimensions."""
    r = audit.r // 2
    while r >= LEAST_R:
        operators = audit.operators * r // audit.r
        yield Remedy(f"stride.r: {r}", model, replace(audit, r=r, operators=operators))
        r //= 2


def _lower_operators(model: ModelShape, audit: AuditShape) -> Iterator[Remedy]:
    """Fewer subsets."""
    gb = audit.operators / GB / 2
    while gb >= LEAST_GB:
        gb = round(gb, 1)
        fewer = replace(audit, operators=int(gb * GB))
        yield Remedy(f"stride.memory_gb: {gb:g}", model, fewer)
        gb /= 2


def _halve_weights(model: ModelShape, audit: AuditShape) -> Iterator[Remedy]:
    """Numbers of two bytes."""
    if model.number_bytes > 2:
        yield Remedy("model.dtype: bfloat16", replace(model, number_bytes=2), audit)


# From the smallest change to the largest, each.
WAYS = (_lower_budget, _measure_one_layer, _lower_r, _lower_operators, _halve_weights)
