"""Audits of before, by the run directories that they left."""

from contextlib import suppress
from pathlib import Path

from poisonwatch.config_file import load_config
from poisonwatch.errors import PoisonwatchError
from poisonwatch.run_directory.layout import SETTINGS_FILE, SUMMARY_FILE


def list_earlier_runs(folder: Path, name: str) -> list[Path]:
    """The run directories in a folder that audits of a name left, whatever the ledger knows of
    them, oldest first. What is no run directory, or has settings that cannot be read, is none.
    """
    found = []
    for summary in sorted(folder.glob(f"*/{SUMMARY_FILE}")):
        with suppress(PoisonwatchError, OSError):
            if load_config(summary.parent / SETTINGS_FILE).name == name:
                found.append(summary.parent)
    return found
