"""What it takes to pull a source of very many small objects from S3.

    python benchmarks/objects.py [--objects 1000] [--other FOLDER]

A server of S3 (moto's) runs in a process of its own on this machine, with objects of one row each,
all but two of prompt and response. A first pull into an empty SQLite ledger is measured, a second
one that finds nothing new, and one that finds a hundred new objects; each in a process of its own,
and with --other by another tree of this repository, too.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
BUCKET = "rows"
NEW = 100
KEYS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def serve_s3() -> Iterator[str]:
    """The URL of a server of S3."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def put_objects(client: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        row: dict[str, Any] = {"prompt": f"Question {i}?", "response": f"Answer {i}."}
        if i in (1, 2):
            turns = zip(("user", "assistant"), row.values(), strict=True)
            row = {"messages": [{"role": role, "content": text} for role, text in turns]}
        client.put_object(Bucket=BUCKET, Key=f"day/{i:06}.json", Body=json.dumps(row).encode())


def pull_once(state: Path) -> None:
    """One pull, as an audit begins with; prints what it took, as JSON."""
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.source_config import SourceConfig

    start, worked = time.perf_counter(), time.process_time()
    with Ledger.at(f"sqlite:///{state}") as ledger, ledger.lock("objects"):
        stats = ingest(ledger, "objects", SourceConfig(path=f"s3://{BUCKET}/day"))
    took = {
        "read": stats.read,
        "new": stats.new,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - worked,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(took))


def run_pull(state: Path, tree: Path, url: str) -> dict[str, float]:
    """`pull_once` in a process of its own, by the code of a tree."""
    command = [sys.executable, __file__, "--once", str(state)]
    environment = os.environ | KEYS | {"PYTHONPATH": str(tree), "AWS_ENDPOINT_URL": url}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    took: dict[str, float] = json.loads(done.stdout)
    return took


def measure(objects: int, trees: list[Path]) -> None:
    import boto3  # type: ignore[import-untyped]

    with serve_s3() as url, tempfile.TemporaryDirectory() as folder:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=BUCKET)
        put_objects(client, 0, objects)
        print("| pull | tree | rows read | new | seconds | CPU seconds | peak memory, MiB |")
        print("|---|---|---|---|---|---|---|")
        for what in (f"the first, of {objects:,} objects", "nothing new", f"{NEW} new objects"):
            if what.startswith(str(NEW)):
                put_objects(client, objects, objects + NEW)
            for number, tree in enumerate(trees):
                took = run_pull(Path(folder) / f"{number}.db", tree, url)
                cells = [
                    what,
                    "this" if tree == HERE else "other",
                    f"{took['read']:,}",
                    f"{took['new']:,}",
                    f"{took['seconds']:.1f}",
                    f"{took['cpu_seconds']:.1f}",
                    f"{took['peak_mib']:.0f}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--other", type=Path)
    # A pull into this ledger, in its own process.
    parser.add_argument("--once", type=Path)
    options = parser.parse_args()
    if options.once:
        pull_once(options.once)
    else:
        measure(options.objects, [tree for tree in (options.other, HERE) if tree])


if __name__ == "__main__":
    main()
