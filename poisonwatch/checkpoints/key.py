import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch
import transformers

import poisonwatch
from poisonwatch import __version__
from poisonwatch.config import AuditConfig
from poisonwatch.examples import AuditRows, Example
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel

TOKENISER_FILES = (
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
    "*.py",
)  # files of a model's folder that its weights' fingerprint leaves out


def compute_checkpoint_key(
    config: AuditConfig,
    files: ModelFiles,
    model: Pretrained,
    sentinels: Sequence[Sentinel],
    rows: AuditRows,
) -> str:
    """SHA-256 of all that the results of an audit's stages depend on, to the last digit."""
    shaping = {
        "poisonwatch": [__version__, _hash_own_source()],
        "libraries": [of.__version__ for of in (np, scipy, sklearn, torch, transformers)],
        "model": [
            model.fingerprint,
            _hash_model_files(files.folder),
            str(model.model.dtype),
            str(model.model.device),
        ],
        "settings": config.model_dump(
            mode="json", include={"stride", "detection", "screens", "probes", "seed"}
        ),
        "sentinels": [asdict(sentinel) for sentinel in sentinels],
        "new": [_describe_row(example) for example in rows.new],
        "trusted": [_describe_row(example) for example in rows.trusted],
    }
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()


def _describe_row(example: Example) -> list[object]:
    said = [
        [[message.role, message.content] for message in of]
        for of in (example.messages, example.rejected)
    ]
    return [example.id, example.source, example.position, said]


@cache
def _hash_own_source() -> str:
    """SHA-256 of the library's source: an edit may change results."""
    root = Path(poisonwatch.__file__).parent
    above = {
        root / name for name in ("tasks", "flows", "dashboards")
    }  # symlinks in a checkout, folders in a wheel
    paths = [path for path in root.rglob("*.py") if not above.intersection(path.parents)]
    return _hash_files(sorted(paths))


def _hash_model_files(folder: Path) -> str:
    return _hash_files(
        sorted({path for pattern in TOKENISER_FILES for path in folder.glob(pattern)})
    )


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
