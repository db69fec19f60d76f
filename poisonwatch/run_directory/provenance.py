"""Where an audit comes from: its audit file, its Poisonwatch, its rows."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import poisonwatch
from poisonwatch import __version__
from poisonwatch.config import AuditConfig


def describe_origin(config: AuditConfig) -> dict[str, Any]:
    """Which audit file, when, by which Poisonwatch: what every summary begins with."""
    return {
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "git_commit": read_git_commit(),
        "seed": config.seed,
    }


def hash_data(ids: Iterable[str]) -> str:
    """SHA-256 over the sorted example ids: the same rows give the same fingerprint in any order."""
    digest = hashlib.sha256()
    # Id by id: a million of them in one text are memory for nothing.
    between = b""
    for id in sorted(ids):
        digest.update(between + id.encode())
        between = b"\n"
    return digest.hexdigest()


def read_git_commit() -> str | None:
    """The commit of the checkout that Poisonwatch runs from; None when it is installed from a
    wheel.
    """
    # Of the package, not of this module: it may move to another folder.
    checkout = Path(poisonwatch.__file__).resolve().parent.parent
    git = shutil.which("git")
    # A wheel lies in site-packages, which may itself be inside somebody's checkout: git would give
    # the commit of that.
    if not git or not (checkout / "pyproject.toml").is_file():
        return None
    command = [git, "-C", str(checkout), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
