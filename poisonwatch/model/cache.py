"""The folder of what need not be made twice: converted models, the work of interrupted audits."""

import os
from pathlib import Path

import platformdirs


def get_cache_folder() -> Path:
    """Where converted models and checkpoints are kept; POISONWATCH_CACHE moves it."""
    return Path(os.environ.get("POISONWATCH_CACHE") or platformdirs.user_cache_path("poisonwatch"))
