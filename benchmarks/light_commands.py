"""What commands cost that load no model: processor seconds (user and system) of the whole process,
and which heavy packages it imports.

    python benchmarks/light_commands.py [--repeats 3]

One small audit of a random model, with an alert target and MLflow's store in a file; then each
command, once for what it imports, which warms Python's caches of bytecode, and the least of some
repeats after it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLI = (sys.executable, "-m", "poisonwatch.flows.cli")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
    from loaded import run_loading
    from servers import http_receiver

    for name in ("PYTHONDONTWRITEBYTECODE", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as name, http_receiver() as receiver:
        folder = Path(name)
        os.environ |= {"POISONWATCH_TEST_TEMPLATES": name, "PREFECT_HOME": f"{name}/prefect"}
        row = make_audit(folder, f"json://{receiver.address}/")
        for arguments in list_commands(folder, row):
            done = run_loading(folder, *arguments)
            seconds = min(measure(folder, arguments) for _ in range(repeats))
            words = " ".join(arguments).replace(name, "DIR")
            print(f"{seconds:5.2f} s  exit {done.code}  {words}  {sorted(done.heavy)}", flush=True)


def make_audit(folder: Path, target: str) -> str:
    """An audit in `folder`, its release and its key; the id of a row that it flagged."""
    from audits import write_audit
    from tiny_models import build_model, build_tokenizer

    build_model("llama").save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    settings = {
        "alerts": [target],
        "schedule": "1h",
        "detection": {"false_discovery_rate": 0.5},
        "keep": {"days": 0, "audits": 1},
    }
    config = write_audit(folder, folder / "model", **settings)
    first = ("audit", str(config), "--engine", "inline", "--quiet", "--run-dir", f"{folder}/run")
    for arguments in (first, ("release", str(config), "--out", f"{folder}/cleared")):
        done = subprocess.run([*CLI, *arguments], check=False)
        assert done.returncode in (0, 3), arguments
    line = (folder / "run" / "flags.jsonl").read_text().splitlines()[0]
    return str(json.loads(line)["example_id"])


def list_commands(folder: Path, row: str) -> list[tuple[str, ...]]:
    """In an order in which each finds what it needs."""
    config = str(folder / "audit.yaml")
    keys = str(folder / "keys")
    return [
        ("--help",),
        ("audit", "--help"),
        ("audit", str(folder / "none.yaml")),
        ("audit", config, "--no-such-option"),
        ("explain", str(folder / "none"), "--prompt", "Who?", "--response", "I."),
        ("drill", config, "--recipes", "no-such-recipe"),
        ("watch", config, "--every", "1s"),
        ("watch", config, "--cron", "nonsense"),
        ("init", str(folder)),
        ("packs",),
        ("history", config),
        ("status", config),
        ("alert-test", config),
        ("decide", config, row, "benign"),
        ("decisions", config),
        ("sync", config),
        ("verify", config),
        ("keys", "init", keys),
        ("keys", "show", config),
        ("mute", config, "panel:default", "--until", "2d"),
        ("mute", config, "--list"),
        ("unmute", config, "panel:default"),
        ("prune", config),
        ("upgrade", config, "--check"),
        ("gate", str(folder / "cleared" / "manifest.json")),
        ("gate", str(folder / "cleared" / "manifest.json"), "--audit", config),
        ("gate", str(folder / "rows.jsonl"), "--audit", config),
        ("release", config, "--out", str(folder / "cleared-again")),
        ("check", str(folder / "rows.jsonl")),
    ]


def measure(folder: Path, arguments: tuple[str, ...]) -> float:
    """Processor seconds of a command, in a process of its own."""
    null = subprocess.DEVNULL
    process = subprocess.Popen([*CLI, *arguments], cwd=folder, stdout=null, stderr=null)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
