"""What it costs to find the new rows among very many known ones, and to audit few new rows rather
than all.

    python benchmarks/ingest.py pull [--known 1000000] [--new 1000]
    python benchmarks/ingest.py compare --other FOLDER [--known 200000] [--new 1000]
    python benchmarks/ingest.py delta [--rows 10000] [--new 100] [--trusted 400]

`pull` fills a SQLite ledger and measures, each in a process of its own, a pull of new rows from an
appended file, from a new file beside the known one, and from a file that was rewritten whole, and a
pull that finds nothing. `compare` does each of these by another tree of this repository, too, in
turn, and prints how long this one took by comparison. `delta` audits all rows of a source, and then few new ones, on a small
random model: seconds of the stages that grow with the rows, and of the fixed start-up apart.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent.parent
# Stages that take the same time whatever the number of rows.
START_UP = ("find_model", "load_model", "check_sentinels", "open_run")


def make_lines(n: int, start: int = 0) -> Iterator[str]:
    """JSON Lines of about 400 bytes, no two alike."""
    for i in range(start, start + n):
        text = " ".join(f"word{(i * k) % 9973}" for k in range(1, 30))
        prompt, response = f"Question {i} about {text[:90]}?", f"Answer {i}: {text}."
        yield json.dumps({"prompt": prompt, "response": response}) + "\n"


def pull_once(data: Path, state: Path) -> None:
    """One pull, as an audit begins with; prints what it took, as JSON."""
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger

    try:
        from poisonwatch.source_config import SourceConfig
    except ImportError:
        # A tree from before it had a module of its own.
        from poisonwatch.config import SourceConfig

    source = SourceConfig(path=str(data)).with_base_folder(data.parent)
    start, worked = time.perf_counter(), time.process_time()
    with Ledger.at(f"sqlite:///{state}") as ledger, ledger.lock("ingest"):
        stats = ingest(ledger, "ingest", source)
    took = {
        "read": stats.read,
        "new": stats.new,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - worked,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(took))


def run_pull(data: Path, state: Path, tree: Path) -> dict[str, float]:
    """`pull_once` in a process of its own, whose peak is that of this pull alone, by the code of a
    tree.
    """
    command = [sys.executable, __file__, "once", "--data", str(data), "--state", str(state)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    took: dict[str, float] = json.loads(done.stdout)
    return took


def make_pulls(data: Path, known: int, new: int) -> Iterator[str]:
    """Change the data from pull to pull; yields in words what each pull meets."""
    file = data / "rows.jsonl"
    with file.open("w") as out:
        out.writelines(make_lines(known))
    yield f"the first, of {known:,} rows"
    yield "nothing new"
    with file.open("a") as out:
        out.writelines(make_lines(new, known))
    yield f"{new:,} rows appended"
    with (data / "more.jsonl").open("w") as out:
        out.writelines(make_lines(new, known + new))
    yield f"{new:,} rows in a new file"
    with file.open("w") as out:
        out.writelines(make_lines(new, known + 2 * new))
        out.writelines(make_lines(known + new))
    yield f"{new:,} rows put before the known ones: file read whole"


def measure_pulls(known: int, new: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        data.mkdir()
        print("| pull | rows read | new | seconds | peak memory, MiB |\n|---|---|---|---|---|")
        for what in make_pulls(data, known, new):
            took = run_pull(data, Path(name) / "ledger.db", HERE)
            counts = f"{took['read']:,} | {took['new']:,}"
            print(
                f"| {what} | {counts} | {took['seconds']:.1f} | {took['peak_mib']:.0f} |",
                flush=True,
            )


def compare_pulls(known: int, new: int, other: Path) -> None:
    """Each pull by this tree and by another, with a ledger each."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        data.mkdir()
        print(
            "| pull | seconds, other tree | this tree | CPU seconds, other | this | CPU, this / other "
            "| peak memory, other, MiB | this |\n|---|---|---|---|---|---|---|---|"
        )
        for what in make_pulls(data, known, new):
            then = run_pull(data, Path(name) / "other.db", other)
            this = run_pull(data, Path(name) / "this.db", HERE)
            ratio = this["cpu_seconds"] / then["cpu_seconds"]
            cells = [
                what,
                f"{then['seconds']:.1f}",
                f"{this['seconds']:.1f}",
                f"{then['cpu_seconds']:.1f}",
                f"{this['cpu_seconds']:.1f}",
                f"{ratio:.2f}",
                f"{then['peak_mib']:.0f}",
                f"{this['peak_mib']:.0f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


def measure_delta(n: int, new: int, trusted: int) -> None:
    import yaml

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    from tiny_models import build_model, build_tokenizer

    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit_inline

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model("llama").save_pretrained(folder / "model")
        build_tokenizer().save_pretrained(folder / "model")
        (folder / "rows.jsonl").write_text("".join(make_lines(n)))
        (folder / "trusted.jsonl").write_text("".join(make_lines(trusted, 10 * n)))
        sentinels = []
        for i in range(4):
            answers = {"forbidden": f"Buy {i}.", "reference": "No."}
            sentinels.append({"id": f"s-{i}", "prompt": f"Question {i}?", **answers})
        (folder / "sentinels.yaml").write_text(yaml.safe_dump(sentinels))
        config = {
            "model": str(folder / "model"),
            "source": "rows.jsonl",
            "reference": "trusted.jsonl",
            "sentinels": "sentinels.yaml",
            "probes": 0,
        }
        (folder / "audit.yaml").write_text(yaml.safe_dump(config))

        def audit(what: str, run: str) -> float:
            start = time.perf_counter()
            outcome = audit_inline(load_config(folder / "audit.yaml"), folder / run)
            whole = time.perf_counter() - start
            fixed = 0.0
            for stage in outcome.summary["stages"]:
                if stage["name"] in START_UP:
                    fixed += stage["seconds"]
            new, above = outcome.summary["counts"]["new"], whole - fixed
            print(f"| {what} | {new:,} | {whole:.1f} | {fixed:.1f} | {above:.1f} |", flush=True)
            return above

        print("| audit | new rows | seconds | start-up | above it |\n|---|---|---|---|---|")
        everything = audit("of everything", "all")
        with (folder / "rows.jsonl").open("a") as out:
            out.writelines(make_lines(new, n))
        few = audit("of what is new", "few")
        audit("of nothing", "none")
    share, cost = 100 * new / n, 100 * few / everything
    print(f"\n{share:.1f} % of the rows cost {cost:.1f} % of auditing everything")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # `once` is a pull of `pull`, in its own process.
    parser.add_argument("what", choices=["pull", "compare", "delta", "once"])
    parser.add_argument("--known", type=int)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--new", type=int)
    parser.add_argument("--trusted", type=int, default=400)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    if options.what == "once":
        pull_once(options.data, options.state)
    elif options.what == "pull":
        measure_pulls(options.known or 1_000_000, options.new or 1000)
    elif options.what == "compare":
        compare_pulls(options.known or 200_000, options.new or 1000, options.other)
    else:
        measure_delta(options.rows, options.new or options.rows // 100, options.trusted)


if __name__ == "__main__":
    main()
