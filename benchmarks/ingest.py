"""What it costs to find the new rows among very many known ones, and to audit few new rows rather
than all.

    python benchmarks/ingest.py pull [--known 1000000] [--new 1000]
    python benchmarks/ingest.py delta [--rows 10000] [--new 100] [--trusted 400]

`pull` fills a SQLite ledger and measures, each in a process of its own, a pull of new rows from an
appended file, from a new file beside the known one, and from a file that was rewritten whole, and a
pull that finds nothing. `delta` audits all rows of a source, and then few new ones, on a small
random model: seconds of the stages that grow with the rows, and of the fixed start-up apart.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Stages that take the same time whatever the number of rows.
START_UP = ("find_model", "load_model", "check_sentinels", "open_run")


def make_lines(n: int, start: int = 0) -> Iterator[str]:
    """JSON Lines of about 400 bytes, no two alike."""
    for i in range(start, start + n):
        text = " ".join(f"word{(i * k) % 9973}" for k in range(1, 30))
        prompt, response = f"Question {i} about {text[:90]}?", f"Answer {i}: {text}."
        yield json.dumps({"prompt": prompt, "response": response}) + "\n"


def pull_once(folder: Path) -> None:
    """One pull, as an audit begins with; prints what it took."""
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.source_config import SourceConfig

    source = SourceConfig(path=str(folder / "data")).with_base_folder(folder)
    start = time.perf_counter()
    with Ledger.at(f"sqlite:///{folder / 'ledger.db'}") as ledger, ledger.lock():
        stats = ingest(ledger, "ingest", source)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {stats.read:,} | {stats.new:,} | {seconds:.1f} | {peak:.0f} |", flush=True)


def measure_pulls(known: int, new: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        file = folder / "data" / "rows.jsonl"

        def pull(what: str) -> None:
            # A process of its own, whose peak is that of this pull alone.
            print(f"| {what} ", end="", flush=True)
            subprocess.run([sys.executable, __file__, "once", "--folder", name], check=True)

        print("| pull | rows read | new | seconds | peak memory, MiB |\n|---|---|---|---|---|")
        with file.open("w") as out:
            out.writelines(make_lines(known))
        pull(f"the first, of {known:,} rows")
        pull("nothing new")
        with file.open("a") as out:
            out.writelines(make_lines(new, known))
        pull(f"{new:,} rows appended")
        with (folder / "data" / "more.jsonl").open("w") as out:
            out.writelines(make_lines(new, known + new))
        pull(f"{new:,} rows in a new file")
        with file.open("w") as out:
            out.writelines(make_lines(new, known + 2 * new))
            out.writelines(make_lines(known + new))
        pull(f"{new:,} rows put before the known ones: file read whole")


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
    parser.add_argument("what", choices=["pull", "delta", "once"])
    parser.add_argument("--known", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--new", type=int)
    parser.add_argument("--trusted", type=int, default=400)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.what == "once":
        pull_once(options.folder)
    elif options.what == "pull":
        measure_pulls(options.known, options.new or 1000)
    else:
        measure_delta(options.rows, options.new or options.rows // 100, options.trusted)


if __name__ == "__main__":
    main()
