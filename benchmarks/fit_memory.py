"""Peak memory of an audit whose rows share subsets (K < n), beside what `stride.memory_gb` counts, on
a random model: it grows with K and the width, hardly with n.

    python benchmarks/fit_memory.py [--rows 2000 20000] [--K 500] [--width 256] [--r 64]

Each number of rows is fitted, recovered in three rounds and measured in a process of its own, with
the same K. `counted` is `OperatorMemory.count_bytes`; `taken` is the process's peak beyond what it
held with the model loaded and one batch passed through, once after the fit and once after the
recovery. What grows with n is what is kept of the rows (tokens, similarity), and the kernel's time.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

MEASURE = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from tiny_models import build_model, build_tokenizer
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.operator_memory import OperatorMemory
from poisonwatch.stride.recover import recover_influence

torch.set_num_threads(1)
n, K, width, r = map(int, sys.argv[2:6])
rows = [Example.from_messages([Message("user", f"Row {i}?"), Message("assistant", f"{i * i % 997}.")]) for i in range(n)]
pretrained = Pretrained(build_model("llama", hidden_size=width), build_tokenizer(), "")
sentinel = Sentinel(id="a", messages=(Message("user", "Which?"),), forbidden="997.", reference="0.", panel="p")

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def run(rows, stride):
    started = time.process_time()
    fitted = fit(pretrained, rows, stride)
    seconds, after_fit = time.process_time() - started, peak()
    started = time.process_time()
    influence, after = recover_influence(fitted, [sentinel], stride)
    return seconds, time.process_time() - started, after_fit, fitted, after, influence

run(rows[:64], StrideConfig(K=32, r=2, background=8, rounds=1))
idle = peak()
stride = StrideConfig(K=K, r=r)
fitting, recovering, after_fit, fitted, after, influence = run(rows, stride)
memory = OperatorMemory(stride, n, r, width, fitted.settings.shortlist, min(n, stride.background), 0)
single = len(after.operators.a) - K
print(json.dumps({
    "operators": 4 * K * r * width / 2**20, "counted": memory.count_bytes(K, single) / 2**20,
    "single": single, "fit": after_fit - idle, "all": peak() - idle, "fitting": fitting,
    "recovering": recovering, "certificate": influence.certificate,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--K", type=int, default=500)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--r", type=int, default=64)
    options = parser.parse_args()
    tests = Path(__file__).parent.parent / "tests" / "support"
    print(
        f"K = {options.K}, D = {options.width}, r = {options.r}; MiB, and processor seconds of the "
        "fit and of the recovery with their growth exponents\n\n"
        "| rows | measured alone | operators | counted | taken by the fit | taken in all | "
        "fit, s | recovery, s | certificate |\n|---|---|---|---|---|---|---|---|---|"
    )
    last: tuple[int, dict[str, float]] | None = None
    for n in options.rows:
        sizes = map(str, (n, options.K, options.width, options.r))
        command = [sys.executable, "-c", MEASURE, str(tests), *sizes]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        seconds = []
        for stage in ("fitting", "recovering"):
            growth = ""
            if last is not None:
                growth = (
                    f" (n^{math.log(found[stage] / last[1][stage]) / math.log(n / last[0]):.2f})"
                )
            seconds.append(f"{found[stage]:.1f}{growth}")
        last = n, found
        print(
            f"| {n:,} | {found['single']} | {found['operators']:.0f} | {found['counted']:.0f} | "
            f"{found['fit']:.0f} | {found['all']:.0f} | {seconds[0]} | {seconds[1]} | "
            f"{found['certificate']:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
