"""What was discovered among an audit's rows, kept and read back.

An audit that looks for groups writes `discovery.json` into its run directory. A complete run
directory does not change: what is looked for later is kept beside it, in a file of its name with a
dot before, which is no file of rows; and goes with it.
"""

import json
from pathlib import Path

from poisonwatch.atomic import replace_file
from poisonwatch.discovery.described import DiscoveryReport
from poisonwatch.discovery.parse import parse_report
from poisonwatch.permissions import restrict_file
from poisonwatch.run_directory.read import DAMAGE_ERRORS, read_cached

DISCOVERY_FILE = "discovery.json"
MOST_BYTES = 64 << 20


def get_later_path(run_dir: Path) -> Path:
    """Where is kept what was looked for once the run directory was complete."""
    return run_dir.with_name(f".{run_dir.name}.{DISCOVERY_FILE}")


def has_discovery(run_dir: Path) -> bool:
    """Whether anything is kept of what was discovered among an audit's rows."""
    if not run_dir.is_dir():
        return False
    return (run_dir / DISCOVERY_FILE).is_file() or get_later_path(run_dir).is_file()


def write_discovery(path: Path, report: DiscoveryReport) -> None:
    """Write a report, whole or not at all, for its owner alone."""
    with replace_file(path) as part:
        text = json.dumps(report.to_record(), indent=1, ensure_ascii=False)
        part.write_text(f"{text}\n", encoding="utf-8")
        restrict_file(part)


def read_discovery(run_dir: Path | None) -> DiscoveryReport | None:
    """What was discovered among the rows of an audit, the latest that is kept; None where nobody
    looked, or it cannot be read. Raises RunError where the audit's own is not what it wrote.
    """
    if run_dir is None:
        return None
    later = get_later_path(run_dir)
    if run_dir.is_dir() and later.is_file():
        try:
            return _parse(later)
        except DAMAGE_ERRORS:
            pass
    return read_cached(_parse, None, run_dir, DISCOVERY_FILE)


def _parse(path: Path) -> DiscoveryReport | None:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("too large")
    record = json.loads(path.read_bytes())
    if not isinstance(record, dict):
        raise TypeError("an object is expected")
    return parse_report(record)
