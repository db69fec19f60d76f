"""What an audit takes, from sizes alone, as a table for people: bytes by part (`cost_memory`), and
operations by stage (`cost_flops`).
"""

from dataclasses import dataclass

from poisonwatch.stride.cost_flops import Flops, estimate_flops
from poisonwatch.stride.cost_memory import Memory, estimate_memory
from poisonwatch.stride.cost_shapes import AuditShape, ModelShape

# Columns of a table: what is told, how much, and of what that is.
NAME, AMOUNT = 26, 10


@dataclass(frozen=True, slots=True)
class Costs:
    """What an audit of these shapes takes."""

    model: ModelShape
    audit: AuditShape
    memory: Memory
    flops: Flops

    @property
    def record_bytes(self) -> int:
        """Of one row, on the disk."""
        return self.memory.records // max(self.audit.n, 1)


def estimate_costs(model: ModelShape, audit: AuditShape) -> Costs:
    """What an audit takes in which every row is measured alone."""
    return Costs(model, audit, estimate_memory(model, audit), estimate_flops(model, audit))


def render_costs(costs: Costs) -> list[str]:
    """The table, a line each, within 80 columns: every part of memory and every stage."""
    memory, flops, audit = costs.memory, costs.flops, costs.audit
    batch = audit.largest_batch
    kept = "gradients left out"
    if audit.keeps_gradients:
        kept = "with gradients"
    elif audit.sketch:
        kept = "with sketches of gradients"
    lines = []
    for name, size, of in (
        ("weights", memory.weights, f"{format_count(costs.model.parameters)} parameters"),
        ("basis and Fisher factors", memory.factors, f"D {costs.model.D}, r {audit.r}"),
        ("reference gradients", memory.reference, f"{audit.known:,} rows"),
        ("background", memory.background, f"{audit.sampled:,} rows"),
        ("operators", memory.operators, "of subsets, and their recovery"),
        ("queries", memory.queries, f"Q {audit.Q}"),
        ("a batch", memory.batch, f"at most {batch.rows:,} rows, {batch.tokens:,} tokens"),
        ("a group's evidence", memory.evidence, "a batch included"),
        ("from records to verdicts", memory.reduction, f"{audit.n:,} rows"),
        ("most at once", memory.peak, "where the model is in main memory"),
        ("records on the disk", memory.records, f"{costs.record_bytes:,} B a row, {kept}"),
    ):
        if size or name != "operators":
            lines.append(_make_line(name, format_bytes(size), of))
    for name, count, of in (
        ("basis", flops.basis, ""),
        ("reference rows", flops.reference, f"{audit.known:,} rows"),
        ("sentinels", flops.sentinels, f"{audit.answers:,} answers"),
        ("all other rows", flops.rows, f"{audit.n - audit.known:,} rows"),
        ("smoothing", flops.smoothing, f"{audit.neighbours} neighbours a row"),
        ("suspects", flops.suspects, f"{min(audit.shortlist, audit.n):,} rows"),
        ("together", flops.total, ""),
        ("evidence", flops.evidence, "more for each group of flagged rows"),
    ):
        lines.append(_make_line(name, f"{format_count(count)}FLOP", of))
    return lines


def _make_line(name: str, amount: str, of: str) -> str:
    return f"{name:<{NAME}}{amount:>{AMOUNT}}  {of}".rstrip()


def format_bytes(size: float) -> str:
    """Bytes in three digits at most, as in 1.4 GB; 1 GB is 10^9 bytes."""
    return f"{format_count(size)}B"


def format_count(count: float) -> str:
    """A number in two or three digits with its unit, as in 135 M."""
    for unit, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            amount = count / unit
            digits = 1 if amount < 9.95 else 0
            return f"{amount:.{digits}f} {name}"
    return f"{count:.0f} "
