"""The key of an audit's checkpoints: a hash of all that its results depend on.

What an interrupted audit left is taken up under the same key alone. A key that leaves something out
would mix results of two audits, so it rather holds too much: every byte of the library's source.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import scipy
import sklearn

import poisonwatch
from poisonwatch import __version__
from poisonwatch.config import AuditConfig
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel

LIBRARY = Path(poisonwatch.__file__).parent

# What only calls the library lies under it as well: symlinks in a checkout, folders in a wheel.
ABOVE_LIBRARY = ("tasks", "flows", "dashboards")

# Files of a model's folder that its fingerprints may leave out, as its settings of generation.
MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")


def compute_checkpoint_key(
    config: AuditConfig,
    files: ModelFiles,
    model: Pretrained,
    sentinels: Sequence[Sentinel],
    rows: AuditRows,
    library: Path = LIBRARY,
) -> str:
    """SHA-256 of all that the results of an audit's stages depend on, to the last digit. `library`:
    the folder of Poisonwatch's source.
    """
    # Rounding differs between versions of these, too.
    libraries = (scipy, sklearn)
    # Of the settings, those that shape numbers: where results go changes none.
    settings = {"stride", "detection", "screens", "probes", "seed"}
    depends_on = {
        "poisonwatch": [__version__, hash_library(library)],
        "libraries": [of.__version__ for of in libraries],
        "model": [
            *model.identity,
            *map(_hash_model_files, files.folders),
        ],
        "settings": config.model_dump(mode="json", include=settings),
        "sentinels": [asdict(sentinel) for sentinel in sentinels],
        "new": _hash_rows(rows.new),
        "trusted": _hash_rows(rows.trusted),
    }
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def _hash_rows(examples: Iterable[Example]) -> str:
    """SHA-256 of the rows in their order, one at a time: their text may be more than memory
    holds.
    """
    digest = hashlib.sha256()
    for example in examples:
        # JSON has no bare line end: no row can be read as two.
        digest.update(json.dumps(_describe_row(example)).encode() + b"\n")
    return digest.hexdigest()


def _describe_row(example: Example) -> list[object]:
    # The id is a hash of the content in a normal form; the model reads the content as it stands.
    said = [_describe_messages(example.messages), _describe_messages(example.rejected)]
    return [example.id, example.source, example.position, said, example.lowered]


def _describe_messages(messages: Sequence[Message]) -> list[list[object]]:
    return [[message.role, message.content, message.masked] for message in messages]


def hash_library(library: Path = LIBRARY) -> str:
    """SHA-256 of the library's source: an edit may change results."""
    above = {library / name for name in ABOVE_LIBRARY}
    paths = []
    for path in sorted(library.rglob("*.py")):
        # Before Python 3.13 rglob enters no symlinked folder, later it may: left out by name.
        if not above.intersection(path.parents):
            paths.append(path)
    return _hash_files(paths, library)


def _hash_model_files(folder: Path) -> str:
    paths: set[Path] = set()
    for pattern in MODEL_FILES:
        paths.update(folder.glob(pattern))
    return _hash_files(sorted(paths), folder)


def _hash_files(paths: Sequence[Path], root: Path) -> str:
    """SHA-256 of the files' contents and of their places below `root`."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        # The whole place, for packages hold files of one name; the length, so that no content can
        # be read as the beginning of the next file.
        place = path.relative_to(root).as_posix()
        digest.update(f"{place} {len(content)}\n".encode() + content)
    return digest.hexdigest()
