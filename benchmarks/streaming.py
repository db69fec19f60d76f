"""Memory and time of a streamed pass by the number of rows, on a tiny random model.

    python benchmarks/streaming.py [--rows 1000 20000 200000]

Each number of rows runs in a process of its own, from a packed file of rows. Peak memory is what
the process itself holds (mapped files aside); a stage's growth exponent is the slope of log seconds
over log rows between the two largest numbers of rows.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import json, os, sys, threading, time
sys.path.insert(0, sys.argv[1])
import torch
from tiny_models import build_model, build_tokenizer
from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.packed_examples import PackedExamples
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride import measured, streamed

torch.set_num_threads(1)
n, folder = int(sys.argv[2]), sys.argv[3]
path = __import__("pathlib").Path(folder) / f"rows-{n}.arrow"
words = "amber basil cedar delta ember fjord grove haven inlet jolly karma lemon mango noble".split()

def rows():
    for i in range(n):
        said = " ".join(words[(i * k + i // 7) % len(words)] for k in range(1, 6))
        yield Example.from_messages(
            [Message("user", f"Row {i}: {words[i % 13]}?"), Message("assistant", f"{said} {i % 97}.")], "rows", i
        )

PackedExamples.write(path, rows())
packed = PackedExamples.open(path)
sentinels = [Sentinel(id=f"s-{i}", messages=(Message("user", f"What of {w}?"),), forbidden=f"{w} is all.", reference="Nothing.", panel=f"p{i % 3}") for i, w in enumerate(words[:9])]

held, done = [0], threading.Event()

def watch():
    while not done.wait(0.02):
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                held[0] = max(held[0], int(line.split()[1]) / 1024)

threading.Thread(target=watch, daemon=True).start()
seconds = {}

def timed(name, work):
    started = time.process_time()
    found = work()
    seconds[name] = time.process_time() - started
    seconds[f"{name}, MiB"] = held[0]
    return found

model = Pretrained(build_model("llama"), build_tokenizer(), "")
fitted = timed("pass", lambda: fit(model, packed, StrideConfig(memory_gb=1e-4), sentinels=sentinels))
found = timed("recovery", lambda: fitted.recover())
done.set()
records = sum(path.stat().st_size for path in fitted.table._store.folder.glob("*.arrow"))
print(json.dumps({"seconds": seconds, "records": records / n}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 20_000, 200_000])
    options = parser.parse_args()
    support = Path(__file__).parent.parent / "tests" / "support"
    found = []
    folder = tempfile.mkdtemp(prefix="streaming-")
    print(
        "| rows | pass, s | peak, MiB | recovery, s | peak, MiB | bytes a record |\n|---|---|---|---|---|---|"
    )
    for n in options.rows:
        command = [sys.executable, "-c", MEASURE, str(support), str(n), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        found.append(result)
        s = result["seconds"]
        print(
            f"| {n:,} | {s['pass']:.1f} | {s['pass, MiB']:.0f} | {s['recovery']:.1f} "
            f"| {s['recovery, MiB']:.0f} | {result['records']:.0f} |",
            flush=True,
        )
    if len(found) > 1:
        apart = math.log(options.rows[-1] / options.rows[-2])
        for stage in ("pass", "recovery"):
            ratio = found[-1]["seconds"][stage] / found[-2]["seconds"][stage]
            print(f"growth exponent of {stage}: {math.log(ratio) / apart:.2f}")


if __name__ == "__main__":
    main()
