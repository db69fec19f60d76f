"""Memory of an audit's attribution as it is estimated before it begins, and as it is taken.

    python benchmarks/memory.py [tiny wide vocabulary default]

Each size is a process of its own: it loads a model, measures rows on sentinels, recovers
coefficients and gathers one group's evidence. `predicted` is what `poisonwatch audit --dry-run`
says, `taken` the most that the process holds of its own (weights, but no other mapped file; sampled
every 10 ms) beyond what it held with everything imported and a tiny audit done; on a GPU PyTorch's
own account.
Models are random but for `default`, the model that an audit has where none is named.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.detection.confirmation import confirm, select_strongest_queries
from poisonwatch.detection.random_groups import draw_pool
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.audit_sizes import build_audit_shape, count_tokens
from poisonwatch.stride.cost_memory import Memory, estimate_memory
from poisonwatch.stride.cost_shapes import ModelShape
from poisonwatch.stride.problem import prepare_problem
from poisonwatch.stride.recover import recover_influence

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from tiny_models import build_model, build_tokenizer

SAMPLE_S = 0.01


@dataclass(frozen=True, slots=True)
class Size:
    """`n` rows of `words` words on a random Llama of these sizes, or on the default model."""

    n: int
    words: int
    stride: dict[str, Any]
    model: dict[str, int] | None = None
    trusted: int = 0


SIZES = {
    "tiny": Size(500, 20, {"r": 16}, {"hidden_size": 64, "depth": 4, "vocab_size": 300}),
    "wide": Size(
        200,
        10,
        {"r": 128, "background": 100},
        {"hidden_size": 2048, "intermediate_size": 3072, "depth": 4, "vocab_size": 300},
    ),
    "vocabulary": Size(
        200,
        25,
        {"background": 100},
        {"hidden_size": 384, "intermediate_size": 1024, "depth": 8, "vocab_size": 120_000},
    ),
    "default": Size(200, 25, {"background": 60}),
}

WARM_UP = Size(60, 3, {"r": 8, "background": 8})

SENTINEL = Sentinel(
    id="a", messages=(Message("user", "Which?"),), forbidden="All.", reference="None.", panel="p"
)


def make_rows(n: int, words: int) -> list[Example]:
    draw = np.random.default_rng(0)
    rows = []
    for i in range(n):
        said = " ".join(draw.choice(["cook", "bake", "stir", "chop"], draw.integers(1, 2 * words)))
        rows.append(Example.from_messages([Message("user", f"{i}?"), Message("assistant", said)]))
    return rows


def save_model(size: Size, folder: str) -> None:
    """Write a random model to a folder, where the size has one of its own."""
    if size.model is not None:
        sizes = {"intermediate_size": 4 * size.model["hidden_size"], **size.model}
        build_model("llama", **sizes).save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)


def attribute(pretrained: Pretrained, size: Size) -> None:
    """Fit, recovery, and the evidence of the first 20 suspects."""
    stride = StrideConfig(**size.stride)
    rows = make_rows(size.n, size.words)
    trusted = np.arange(size.trusted) if size.trusted else None
    fitted = fit(pretrained, rows, stride, trusted=trusted, sentinels=[SENTINEL])
    influence, fitted = recover_influence(fitted, [SENTINEL], stride)
    group = influence.suspects[:20]
    others = np.setdiff1d(np.arange(size.n), group)
    pool = draw_pool(fitted, influence.features, group, others)
    confirm(fitted, group, pool, select_strongest_queries(influence, group, "p"))


def predict(pretrained: Pretrained, size: Size) -> Memory:
    stride = StrideConfig(**size.stride)
    trusted = np.arange(size.trusted) if size.trusted else None
    problem = prepare_problem(pretrained, make_rows(size.n, size.words), stride, trusted=trusted)
    shape = ModelShape.of_model(problem.model)
    audit = build_audit_shape(
        stride,
        problem.settings,
        problem.encoder,
        [SENTINEL],
        count_tokens(problem.encode(np.arange(size.n))),
        width=shape.D,
        n=size.n,
        trusted=size.trusted,
    )
    return estimate_memory(shape, audit)


def read_own_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not say what a process holds")


@contextmanager
def watch_peak() -> Iterator[list[int]]:
    """The most that the process held of its own, in bytes, after a `with`."""
    peak, done = [read_own_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            peak[0] = max(peak[0], read_own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def measure(name: str, folder: str) -> dict[str, Any]:
    """Bytes by part as predicted, and those `taken`."""
    size = SIZES[name]
    config = ModelConfig() if size.model is None else ModelConfig(name=folder)
    # What is allocated once, at first use, is no size's own.
    attribute(Pretrained(build_model("llama"), build_tokenizer(), ""), WARM_UP)
    idle = read_own_bytes()
    with watch_peak() as peak:
        pretrained = load_pretrained(config)
        loaded = read_own_bytes() - idle
        attribute(pretrained, size)
    weights = sum(weight.nbytes for weight in pretrained.model.parameters())
    # Those that stay mapped from their file are memory, too.
    taken = peak[0] - idle + max(0, weights - loaded)
    if pretrained.device.type == "cuda":
        taken = torch.cuda.max_memory_allocated()
    memory = predict(pretrained, size)
    predicted = memory.model_peak if pretrained.device.type == "cuda" else memory.peak
    return {"taken": taken, "predicted": predicted, **asdict(memory)}


def render(name: str, found: dict[str, Any]) -> str:
    """A line of the table, in MiB."""
    size = SIZES[name]
    model = size.model or {"hidden_size": 576, "vocab_size": 49_152}
    r = size.stride.get("r", StrideConfig().r)
    cells = [name, size.n, model["hidden_size"], r, f"{model['vocab_size']:,}"]
    for part in ("weights", "batch", "evidence", "predicted", "taken"):
        cells.append(f"{found[part] / 2**20:,.0f}")
    cells.append(f"{found['predicted'] / found['taken']:.2f}")
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    print(
        "| size | n | D | r | V | weights | a batch | a group's evidence | predicted | taken | "
        "predicted / taken |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            save_model(SIZES[name], folder)
            command = [sys.executable, __file__, "--measure", name, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(render(name, json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
