"""What the fitting pass costs, in bare forward passes of the same model over the same rows in the
same process.

    python benchmarks/fit_cost.py [--rows 128] [--repeats 3]

Forward and fit take turns, so that a machine that slows down slows both. The fit is the audit's
whole: encoding, basis, pass, solve.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.datasets.demo import load_demo_examples
from poisonwatch.model.encoding import ChatEncoder, make_batches
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.stride.attribution import fit


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    pretrained, stride = load_pretrained(ModelConfig(name=options.model)), StrideConfig()
    examples = load_demo_examples()[: options.rows]
    encoder = ChatEncoder(pretrained.tokenizer, stride.max_tokens)
    encoded = [encoder.encode_example(example) for example in examples]

    @torch.no_grad()
    def forward() -> None:
        for batch in make_batches(encoded, stride.token_budget):
            pretrained.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )

    forward()  # warm-up
    pairs = [
        (seconds(forward), seconds(lambda: fit(pretrained, examples, stride)))
        for _ in range(options.repeats)
    ]
    ratios = [b / a for a, b in pairs]
    tokens = sum(map(len, encoded))
    print(f"{len(examples)} rows, {tokens} tokens, {torch.get_num_threads()} threads")
    for a, b in pairs:
        print(f"forward {a:.1f} s, fit {b:.1f} s, ratio {b / a:.2f}")
    print(
        f"ratio: min {min(ratios):.2f}, median {statistics.median(ratios):.2f}, max {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
