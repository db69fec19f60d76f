"""A split of a data set on the Hugging Face hub, streamed, at the commit that its revision named
when it was opened.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.arrow import read_batches
from poisonwatch.sources.base import (
    BATCH_ROWS,
    RELATIVE_PATHS,
    OpenedSource,
    PassedOver,
    Reading,
    SourceFile,
    translate_errors,
)
from poisonwatch.sources.discovery import Discovery
from poisonwatch.sources.file_types import escape_name
from poisonwatch.sources.files import open_files
from poisonwatch.sources.links import Root
from poisonwatch.sources.saved import is_saved
from poisonwatch.sources.side_files import TOOL_FOLDERS
from poisonwatch.sources.trees import LocalTree
from poisonwatch.text.secrets import conceal

DEFAULT_SPLIT = "train"
COMMIT_TIMEOUT_SECONDS = 30.0  # that the hub may take to tell a commit


class HubSplit(SourceFile):
    """One split. Its fingerprint is the commit; of a data set in a folder, what the sizes and times
    of its files tell.
    """

    def __init__(self, source: SourceConfig, name: str, fingerprint: str) -> None:
        super().__init__(name, fingerprint)
        self._source = source

    @property
    def _is_folder(self) -> bool:
        return bool(self._source.hub) and Path(self._source.hub or "").is_dir()

    def read(self, after: str | None = None) -> Iterator[RawRow]:  # noqa: ARG002
        """All rows: another commit may differ anywhere."""
        self._reading = reading = Reading()
        with translate_errors(f"{self.name} cannot be read", conceal):
            split = self._load()
            schema = split.features.arrow_schema if split.features else None
            yield from read_batches(_iterate_batches(split), self.name, reading, schema=schema)
            # A commit never changes; a folder may.
            folder = Path(self._source.hub or "")
            if self._is_folder and _compute_folder_fingerprint(folder) != self.fingerprint:
                raise SourceError(
                    f"{self.name} changed while it was read: its rows may be of two versions; "
                    "run the audit again"
                )

    def _load(self) -> datasets.IterableDataset:
        source = self._source
        datasets.disable_progress_bars()
        commit = None
        if not self._is_folder:
            commit = self.fingerprint
        return datasets.load_dataset(
            source.hub,
            name=source.subset,
            split=source.split or DEFAULT_SPLIT,
            revision=commit,
            streaming=True,
        )


def _iterate_batches(split: datasets.IterableDataset) -> Iterator[pa.RecordBatch]:
    for table in split.with_format("arrow").iter(BATCH_ROWS):
        yield from table.to_batches()


def open_hub(source: SourceConfig, key: str) -> OpenedSource:
    """What a source names on the hub or in a folder like one there: a split; of a folder that
    `datasets` saved, its files.

    Raises what `open_split` does, and SourceError where a link leads out of the folder.
    """
    folder = Path(source.hub or "")
    if not folder.is_dir():
        return OpenedSource([open_split(source, key)])
    if is_saved(folder):
        return open_files(source, key)
    split = open_split(source, key)
    place = source.get_display_name(str(folder))
    with translate_errors(f"{place} cannot be reached (check `{key}`)", conceal):
        return OpenedSource([split], _find_passed_over(source, folder))


def _find_passed_over(source: SourceConfig, folder: Path) -> list[PassedOver]:
    """What lies in a folder that `datasets` reads none of its splits from."""

    def name_path(path: str) -> str:
        return escape_name(source.get_display_name(path))

    discovery = Discovery(LocalTree(Root.of(str(folder), source.follow_links)), name_path)
    discovery.add_folder(str(folder))
    read = _list_files_read(source, folder)
    # What is wrong with the folder as a whole is told where it is read.
    if read is None:
        return discovery.passed_over
    names = {name_path(path) for path in read}
    passed_over = [one for one in discovery.passed_over if one.name not in names]
    for file in discovery.found:
        if file.name not in names:
            reason = "`datasets` takes no split from it"
            passed_over.append(PassedOver(file.name, reason, may_hold_rows=True))
    return sorted(passed_over, key=lambda one: one.name)


def _list_files_read(source: SourceConfig, folder: Path) -> list[str] | None:
    """The files that `datasets` reads splits from; None where it cannot tell."""
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(str(folder), name=source.subset)
    except Exception:
        return None
    paths = []
    for files in (builder.config.data_files or {}).values():
        for path in files:
            # `datasets` names them without the links on the way to the folder.
            if Path(path).is_relative_to(folder.resolve()):
                paths.append(str(folder / Path(path).relative_to(folder.resolve())))
    return paths


def open_split(source: SourceConfig, key: str) -> HubSplit:
    """The split that a source names.

    Raises SourceError, naming the audit file's `key`, where the hub does not answer, or has no such
    data set or revision.
    """
    hub = source.hub or ""
    folder = Path(hub)
    place = f"hf://datasets/{hub}"
    if folder.is_dir():
        place = source.get_display_name(hub)
    name = "/".join(filter(None, (place, source.subset, source.split or DEFAULT_SPLIT)))
    with translate_errors(f"{place} cannot be reached (check `{key}`)", conceal):
        if folder.is_dir():
            return HubSplit(source, name, _compute_folder_fingerprint(folder))
        # Reading the audit file made every path absolute: what is none is the name of a data set.
        if folder.is_absolute():
            raise SourceError(f"{hub} does not exist: check `{key}` {RELATIVE_PATHS}")
        return HubSplit(source, name, _ask_for_commit(source, place, key))


def _ask_for_commit(source: SourceConfig, place: str, key: str) -> str:
    """The commit that the source's revision names now."""
    try:
        found = HfApi().dataset_info(
            source.hub or "", revision=source.revision, timeout=COMMIT_TIMEOUT_SECONDS
        )
    except GatedRepoError:
        raise SourceError(
            f"{place} is gated: ask for access on its page, and set HF_TOKEN to your token "
            f"(`{key}`)"
        ) from None
    except RepositoryNotFoundError:
        raise SourceError(
            f"{place} does not exist, or is private and HF_TOKEN holds no token for it: "
            f"check `{key}`"
        ) from None
    except RevisionNotFoundError:
        raise SourceError(f"{place} has no revision {source.revision}: check `{key}`") from None
    return str(found.sha)


def _compute_folder_fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        # What Git or a download keeps for itself changes without the data.
        if any(part.lower() in TOOL_FOLDERS for part in below.parts):
            continue
        status = path.stat()
        line = f"{below}\0{status.st_size}\0{status.st_mtime_ns}\0"
        # A file's name may be bytes that are no UTF-8.
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
