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
from poisonwatch.sources.base import BATCH_ROWS, Reading, SourceFile, translate_errors
from poisonwatch.text.redaction import redact_url

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
        with translate_errors(f"{self.name} cannot be read", redact_url):
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
            source.hub, name=source.subset, split=source.split, revision=commit, streaming=True
        )


def _iterate_batches(split: datasets.IterableDataset) -> Iterator[pa.RecordBatch]:
    for table in split.with_format("arrow").iter(BATCH_ROWS):
        yield from table.to_batches()


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
    name = "/".join(filter(None, (place, source.subset, source.split)))
    with translate_errors(f"{place} cannot be reached (check `{key}`)", redact_url):
        if folder.is_dir():
            return HubSplit(source, name, _compute_folder_fingerprint(folder))
        # Reading the audit file made every path absolute: what is none is the name of a data set.
        if folder.is_absolute():
            raise SourceError(
                f"{hub} does not exist: check `{key}` "
                "(relative paths start at the audit file's folder)"
            )
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
        status = path.stat()
        line = f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\0"
        # A file's name may be bytes that are no UTF-8.
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
