"""What measuring the rows costs, in bare forward passes of the same model over the same rows in the
same process.

    python benchmarks/fit_cost.py [--rows 128] [--repeats 3] [--no-float32]

A bare pass makes every token's logits, with a mask, as anyone would who asks a model for its losses.
Three kinds of it and the fit take turns, so that a machine that slows down slows all: in the fit's
own precision, as the fit runs it (no mask, logits of answers alone), and in float32. The fit is the
audit's whole: encoding, basis, trusted background, pass, sentinels. Beside it stands the same fit
at its first layer alone: what further layers cost. Seconds are the processor's, all threads
together: what the work costs, not what others do meanwhile.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.datasets.demo import load_demo_examples, write_demo
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.stride.attribution import fit


def measure_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.no_grad()
def run_bare(pretrained: Pretrained, encoded: list[Encoded], token_budget: int) -> None:
    """Every token's logits, as transformers makes them."""
    for batch in make_batches(encoded, token_budget, pretrained.model.device):
        pretrained.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )


def run_lean(model: FrozenModel, encoded: list[Encoded], token_budget: int) -> None:
    """What is needed of a forward pass: no mask, and the answers' logits alone."""
    for batch in make_batches(encoded, token_budget, model.device):
        model.run(batch)


def load_demo_sentinels() -> list[Sentinel]:
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder))
        return load_sentinels([str(Path(folder) / "sentinels.yaml")])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default=ModelConfig().name)
    parser.add_argument("--no-float32", action="store_true", help="leave out passes in float32")
    options = parser.parse_args()
    stride, sentinels = StrideConfig(), load_demo_sentinels()
    one_layer = stride.model_copy(update={"further_layers": []})
    pretrained = load_pretrained(ModelConfig(name=options.model))
    examples = load_demo_examples()[: options.rows]
    encoder = pretrained.make_encoder(stride.max_tokens)
    encoded = [encoder.encode_example(example) for example in examples]
    budget = stride.token_budget
    model = FrozenModel(pretrained.model, 0)
    kinds: dict[str, Callable[[], object]] = {
        "bare": lambda: run_bare(pretrained, encoded, budget),
        "lean": lambda: run_lean(model, encoded, budget),
        "one layer": lambda: fit(pretrained, examples, one_layer, sentinels=sentinels),
        "fit": lambda: fit(pretrained, examples, stride, sentinels=sentinels),
    }
    if not options.no_float32:
        exact = load_pretrained(ModelConfig(name=options.model, products="float32"))
        kinds["float32"] = lambda: run_bare(exact, encoded, budget)
    run_bare(pretrained, encoded[:8], budget)  # warm-up
    print(
        f"{len(examples)} rows, {sum(map(len, encoded))} tokens, {len(sentinels)} sentinels, "
        f"{torch.get_num_threads()} threads, {pretrained.precision}",
        flush=True,
    )
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.repeats):
        for name, work in kinds.items():
            seconds[name].append(measure_seconds(work))
        print(", ".join(f"{name} {of[-1]:.1f} s" for name, of in seconds.items()), flush=True)
    for name in sorted(set(kinds) - {"fit"}):
        ratios = [a / b for a, b in zip(seconds["fit"], seconds[name], strict=True)]
        print(
            f"fit / {name}: min {min(ratios):.2f}, median {statistics.median(ratios):.2f}, "
            f"max {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
