"""The files that a first audit starts from: audit.yaml, filled in from a template, and what it
names. Nothing that is there is written over, unless that is asked for.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from poisonwatch.errors import InputError

AUDIT_FILE, SENTINELS_FILE = "audit.yaml", "sentinels.yaml"
# Rows that are set apart as trusted, all others, and what says how they were drawn.
TRUSTED_FOLDER, ROWS_FOLDER, SPLIT_FILE = "trusted", "rows", "split.json"

# What stands in the template for each setting that is filled in.
_TEMPLATE_LINES = {
    "name": "name: my-audit\n",
    "source": "source: data/*.jsonl\n",
    "reference": "# reference: trusted/*.jsonl\n",
    "sentinels": 'sentinels: [sentinels.yaml, "pack:refusal-erosion"]\n',
    "model": "model: HuggingFaceTB/SmolLM2-135M-Instruct\n",
}


def fill_template(settings: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """A commented audit file with these settings, and a comment before some of them, by key."""
    text = read_template(AUDIT_FILE)
    for key, value in settings.items():
        comment = "".join(f"# {line}\n" for line in notes.get(key, "").splitlines())
        # as JSON, which is YAML: a folder may be called `true`, or `a: b`
        written = json.dumps(value, ensure_ascii=False)
        text = text.replace(_TEMPLATE_LINES[key], f"{comment}{key}: {written}\n", 1)
    return text


def read_template(name: str) -> str:
    """A file as it ships."""
    folder = resources.files("poisonwatch.flows.cli") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def refuse_existing(folder: Path, names: Sequence[str], force: bool) -> None:
    """Raises InputError where one of the names is taken: with `force`, where what is there is a
    folder of rows that no split of ours made.
    """
    ours = (folder / SPLIT_FILE).exists()
    for name in names:
        path = folder / name
        if not path.exists():
            continue
        if not force:
            raise InputError(
                f"{path} exists: name another folder, or write over it (--force); nothing was "
                "written"
            )
        if path.is_dir() and not ours:
            raise InputError(
                f"{path} is a folder that `poisonwatch init` did not make: move it away, or name "
                "another folder; nothing was written"
            )
