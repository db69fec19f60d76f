"""What results depend on of a model that was found: its weights, and how it reads.

    fingerprint    of its configuration and weights, and of those of an adapter: what it computes
    reading        of its tokenizer, its chat template, the settings of that, and of code that comes
                   with the model: what it is given for a row

Either decides the numbers: a row that is cleared under one pair is not cleared under another.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from poisonwatch.config import ModelConfig
from poisonwatch.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from poisonwatch.template_config import read_template

# Of a tokenizer, in whatever form; and its chat templates.
READING_FILES = (
    "tokenizer*.json",
    "tekken.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
)
CODE_FILES = ("*.py",)
# Settings that shape what the model is given; those at their defaults shape nothing.
READING_SETTINGS = {"chat_template", "template_kwargs", "template_date", "end_of_answer"}

# The same weights once more, as another program reads them.
CONSOLIDATED_WEIGHTS = "consolidated*.safetensors"


def list_weights(folder: Path) -> list[Path]:
    """A model's files of weights, by name: without an adapter's, and without those that hold the
    same weights once more.
    """
    weights = []
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != ADAPTER_WEIGHTS and not path.match(CONSOLIDATED_WEIGHTS):
            weights.append(path)
    return weights


def compute_model_fingerprint(folder: Path, adapter: Path | None = None) -> str:
    """SHA-256 over a model folder's config.json and safetensors files, by name; with an adapter,
    over that, its configuration and its weights.
    """
    base = hash_contents([folder / "config.json", *list_weights(folder)])
    if adapter is None:
        return base
    added = hash_contents([adapter / ADAPTER_CONFIG, adapter / ADAPTER_WEIGHTS])
    return hashlib.sha256(f"{base} {added}".encode()).hexdigest()


def compute_reading(
    config: ModelConfig, folder: Path, tokenizer: Path, chat_template: Path | None = None
) -> str:
    """SHA-256 of what turns rows into tokens: the settings, the files of the folder of the
    `tokenizer`, a `chat_template` that lies elsewhere, and, where it is trusted, the code in the
    model's `folder`.

    Raises ModelError where a template that the settings name cannot be read.
    """
    depends_on: dict[str, Any] = {
        "settings": describe_reading_settings(config),
        "tokenizer": _hash_each(tokenizer, READING_FILES),
    }
    if chat_template is not None:
        depends_on["chat_template"] = hash_contents([chat_template])
    if config.trust_remote_code:
        depends_on["code"] = _hash_each(folder, CODE_FILES)
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def describe_reading_settings(config: ModelConfig) -> dict[str, Any]:
    """The settings that shape what the model is given and are not at their defaults, as JSON; of a
    template's file, what is in it.
    """
    settings = config.model_dump(mode="json", include=READING_SETTINGS, exclude_defaults=True)
    if "chat_template" in settings:
        settings["chat_template"] = read_template(config.chat_template)
    return settings


def _hash_each(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each file of these patterns, by its place in the folder."""
    hashes = {}
    for path in _list_files(folder, patterns):
        hashes[path.relative_to(folder).as_posix()] = hash_contents([path])
    return hashes


def _list_files(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_file():
                yield path


def hash_contents(paths: Iterable[Path]) -> str:
    """SHA-256 of these files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
