"""Folders that are called key=value: pandas, pyarrow and Spark add what they say to each row below
them.
"""

from pathlib import PurePosixPath

from poisonwatch.errors import SourceError
from poisonwatch.formats.fields import KNOWN_NAMES
from poisonwatch.text.display import excerpt

_MAX_NAME_CHARACTERS = 100


def refuse_partition_fields(path: str, name: str) -> None:
    """Raises SourceError where a folder on the way to a file gives its rows a field that is
    trained on; `name` stands for the file.
    """
    for folder in PurePosixPath(path).parts[:-1]:
        key, equals, _ = folder.partition("=")
        if equals and key.strip().lower() in KNOWN_NAMES:
            raise SourceError(
                f"{name} lies in the folder {excerpt(repr(folder), _MAX_NAME_CHARACTERS)}, from "
                f"which readers of partitions take the field {key.strip()!r} of its rows: call it "
                "otherwise"
            )
