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

START_UP = (
    "find_model",
    "load_model",
    "check_sentinels",
    "open_run",
)  # whatever the number of rows


def rows(n: int, start: int = 0) -> Iterator[str]:
    """JSON Lines of about 400 bytes, no two alike."""
    for i in range(start, start + n):
        text = " ".join(f"word{(i * k) % 9973}" for k in range(1, 30))
        yield (
            json.dumps(
                {"prompt": f"Question {i} about {text[:90]}?", "response": f"Answer {i}: {text}."}
            )
            + "\n"
        )


def pull_once(folder: Path) -> None:
    """One pull, as an audit begins with; prints what it took."""
    from poisonwatch.config import SourceConfig
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger

    start = time.perf_counter()
    with Ledger.at(f"sqlite:///{folder / 'ledger.db'}") as ledger, ledger.lock():
        source = SourceConfig(path=str(folder / "data")).with_base_folder(folder)
        taken = ingest(ledger, "ingest", source)
    seconds, peak = (
        time.perf_counter() - start,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    print(f"| {taken.read:,} | {taken.new:,} | {seconds:.1f} | {peak:.0f} |", flush=True)


def pulls(known: int, new: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        file = folder / "data" / "rows.jsonl"

        def measured(what: str) -> None:
            print(f"| {what} ", end="", flush=True)
            subprocess.run([sys.executable, __file__, "once", "--folder", name], check=True)

        print("| pull | rows read | new | seconds | peak memory, MiB |\n|---|---|---|---|---|")
        with file.open("w") as out:
            out.writelines(rows(known))
        measured(f"the first, of {known:,} rows")
        measured("nothing new")
        with file.open("a") as out:
            out.writelines(rows(new, known))
        measured(f"{new:,} rows appended")
        with (folder / "data" / "more.jsonl").open("w") as out:
            out.writelines(rows(new, known + new))
        measured(f"{new:,} rows in a new file")
        with file.open("w") as out:
            out.writelines(rows(new, known + 2 * new))
            out.writelines(rows(known + new))
        measured(f"{new:,} rows put before the known ones: file read whole")


def delta(n: int, new: int, trusted: int) -> None:
    import yaml

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    from tiny_models import build_model, build_tokenizer

    from poisonwatch.config_file import load_config
    from poisonwatch.flows.audit import audit_inline

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model("llama").save_pretrained(folder / "model")
        build_tokenizer().save_pretrained(folder / "model")
        (folder / "rows.jsonl").write_text("".join(rows(n)))
        (folder / "trusted.jsonl").write_text("".join(rows(trusted, 10 * n)))
        sentinels = [
            {
                "id": f"s-{i}",
                "prompt": f"Question {i}?",
                "forbidden": f"Buy {i}.",
                "reference": "No.",
            }
            for i in range(4)
        ]
        (folder / "sentinels.yaml").write_text(yaml.safe_dump(sentinels))
        config = {
            "model": str(folder / "model"),
            "source": "rows.jsonl",
            "reference": "trusted.jsonl",
            "sentinels": "sentinels.yaml",
            "probes": 0,
        }
        (folder / "audit.yaml").write_text(yaml.safe_dump(config))

        def measured(what: str, run: str) -> float:
            start = time.perf_counter()
            outcome = audit_inline(load_config(folder / "audit.yaml"), folder / run)
            whole = time.perf_counter() - start
            fixed = sum(
                stage["seconds"] for stage in outcome.summary["stages"] if stage["name"] in START_UP
            )
            print(
                f"| {what} | {outcome.summary['counts']['new']:,} | {whole:.1f} | {fixed:.1f} | {whole - fixed:.1f} |",
                flush=True,
            )
            return whole - fixed

        print("| audit | new rows | seconds | start-up | above it |\n|---|---|---|---|---|")
        everything = measured("of everything", "all")
        with (folder / "rows.jsonl").open("a") as out:
            out.writelines(rows(new, n))
        few = measured("of what is new", "few")
        measured("of nothing", "none")
    print(
        f"\n{100 * new / n:.1f} % of the rows cost {100 * few / everything:.1f} % of auditing everything"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        pulls(options.known, options.new or 1000)
    else:
        delta(options.rows, options.new or options.rows // 100, options.trusted)


if __name__ == "__main__":
    main()
