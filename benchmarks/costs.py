"""What an audit takes by formula, for models of four sizes and up to a million rows: no data, no model, seconds.

    python benchmarks/costs.py > /tmp/costs.md

Sizes are those of the models' config.json on the Hugging Face hub. Rows, sentinels and settings are made up (`make_audit`); whoever has rows
asks `poisonwatch audit AUDIT.yaml --dry-run`.
"""

from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.stride.cost_shapes import AuditShape, ModelShape
from poisonwatch.stride.costs import Costs, estimate_costs, format_bytes, format_count
from poisonwatch.stride.settings import (
    count_kept_gradients,
    resolve_further_layers,
    resolve_shortlist,
)

ROWS = (10_000, 100_000, 1_000_000)
SKETCH = 2048  # bytes of a row's gradient, where all of them take more than 2 GB
TERAFLOPS = 200  # that a device really does; a division, no measurement


def make_model(
    D: int,
    depth: int,
    heads: int,
    kv_heads: int,
    head_width: int,
    F: int,
    V: int,
    tied: bool,
) -> ModelShape:
    """In bfloat16, split where audits split it."""
    layer = depth * 2 // 5
    return ModelShape(
        D=D,
        depth=depth,
        layer=layer,
        further=resolve_further_layers(StrideConfig(), layer, depth),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        F=F,
        F_held=F,
        V=V,
        tied=tied,
        number_bytes=2,
    )


MODELS = {
    "135M (HuggingFaceTB/SmolLM2-135M)": make_model(576, 30, 9, 3, 64, 1536, 49_152, tied=True),
    "1B (meta-llama/Llama-3.2-1B)": make_model(2048, 16, 32, 8, 64, 8192, 128_256, tied=True),
    "8B (meta-llama/Llama-3.1-8B)": make_model(4096, 32, 32, 8, 128, 14_336, 128_256, tied=False),
    "70B (meta-llama/Llama-3.1-70B)": make_model(8192, 80, 64, 8, 128, 28_672, 128_256, tied=False),
}


def make_audit(model: ModelShape, n: int) -> AuditShape:
    """Rows of 30 to 512 tokens, 250 on average, half of them answers; 24 sentinels with both answers in 4 panels, and two probes of each."""
    stride = StrideConfig()
    times = 1 + AuditConfig.model_fields["probes"].default
    return AuditShape(
        n=n,
        row_tokens=250.0,
        answer_share=0.5,
        Q=times * 48,
        answers=times * 48,
        answer_length=60.0,
        panels=times * 4,
        r=stride.r,
        trusted=2000,
        background=stride.background,
        shortlist=resolve_shortlist(stride, n),
        token_budget=2048,
        keeps_gradients=n <= count_kept_gradients(stride, stride.r, model.D),
        sketch=SKETCH,
        shortest=30,
        longest=512,
    )


def describe_kept(costs: Costs) -> str:
    return "gradients" if costs.audit.keeps_gradients else "sketches"


def render_memory() -> list[str]:
    lines = [
        "| model | rows | weights | reference gradients, background, queries | largest batch | most where the model is | main memory"
        " | records on the disk | a row | with |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in MODELS.items():
        for n in ROWS:
            costs = estimate_costs(model, make_audit(model, n))
            memory = costs.memory
            operators = memory.reference + memory.background + memory.queries
            sizes = (
                memory.weights,
                operators,
                memory.batch,
                memory.model_peak,
                memory.main_peak,
                memory.records,
                costs.record_bytes,
            )
            cells = [name, f"{n:,}", *map(format_bytes, sizes), describe_kept(costs)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def render_flops() -> list[str]:
    lines = [
        "| model | rows | basis | reference rows | sentinels | all other rows | smoothing | suspects | together | a group's evidence"
        f" | hours at {TERAFLOPS} TFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in MODELS.items():
        for n in ROWS:
            flops = estimate_costs(model, make_audit(model, n)).flops
            stages = (
                flops.basis,
                flops.reference,
                flops.sentinels,
                flops.rows,
                flops.smoothing,
                flops.suspects,
                flops.total,
                flops.evidence,
            )
            hours = flops.total / (TERAFLOPS * 1e12) / 3600
            cells = [name, f"{n:,}", *map(format_count, stages), f"{hours:.2g}"]
            lines.append(f"| {' | '.join(cell.strip() for cell in cells)} |")
    return lines


def main() -> None:
    print("Bytes:\n")
    print("\n".join(render_memory()))
    print("\nOperations (FLOP):\n")
    print("\n".join(render_flops()))


if __name__ == "__main__":
    main()
