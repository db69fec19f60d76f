"""Peak memory of a fit at different numbers of rows, on a tiny random model: it should not grow
with n.

    python benchmarks/fit_memory.py [--rows 2000 20000] [--K 500]

Each fit runs in a process of its own, with the same K: what is left to grow is what is kept of the
rows (tokens, similarity, background).
"""

import argparse
import subprocess
import sys
from pathlib import Path

MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
from tiny_models import build_model, build_tokenizer
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.attribution import fit

torch.set_num_threads(1)
n, K = int(sys.argv[2]), int(sys.argv[3])
rows = [Example.from_messages([Message("user", f"Row {i}?"), Message("assistant", f"{i * i % 997}.")]) for i in range(n)]
fit(Pretrained(build_model("llama"), build_tokenizer(), ""), rows, StrideConfig(K=K, r=32))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--K", type=int, default=500)
    options = parser.parse_args()
    tests = Path(__file__).parent.parent / "tests" / "support"
    peaks = []
    print("| rows | peak memory, MiB | of the first |\n|---|---|---|")
    for n in options.rows:
        command = [sys.executable, "-c", MEASURE, str(tests), str(n), str(options.K)]
        peaks.append(
            float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        )
        print(f"| {n:,} | {peaks[-1]:.0f} | {peaks[-1] / peaks[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
