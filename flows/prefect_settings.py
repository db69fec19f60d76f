"""Which Prefect server is configured, asked without Prefect where nothing could name one: to import
it takes two seconds.
"""

import os
import sys
from pathlib import Path

# In the current folder; each may hold much else.
FILES = ("prefect.toml", "pyproject.toml", ".env")
VARIABLES = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")


def find_prefect_api() -> str:
    """The address of the configured Prefect server's API; empty where there is none, and Prefect
    would start a temporary one.
    """
    # who imported it may have changed its settings
    if "prefect" not in sys.modules and not _may_be_configured():
        return ""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() or ""


def _may_be_configured() -> bool:
    """Whether anything that Prefect reads its settings from could name a server."""
    if any(os.environ.get(name) for name in VARIABLES):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    return (home / "profiles.toml").exists() or any(map(_names_prefect, FILES))


def _names_prefect(name: str) -> bool:
    try:
        return "prefect" in Path(name).read_text(encoding="utf-8").lower()
    except FileNotFoundError:
        return False
    # what cannot be read here, Prefect may make something of
    except (OSError, UnicodeDecodeError):
        return True
