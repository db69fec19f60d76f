"""Names of files and folders that lie beside rows and hold none, or are not meant to be read."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from poisonwatch.sources.file_types import detect_file_type, list_file_types

HIDDEN = (".", "_")  # begin the names that are passed over
# What version control, Python and download tools keep for themselves: not even looked into.
TOOL_FOLDERS = (".cache", ".git", ".hg", ".ipynb_checkpoints", ".svn", "__macosx", "__pycache__")
APPLE_DOUBLE = b"\x00\x05\x16\x07"  # begins the files that macOS puts beside others, as ._name

_TEMPORARY = [
    "~$*",
    "#*#",
    "*~",
    "*.tmp",
    "*.temp",
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.swp",
    "*.swo",
]
_TEMPORARY += ["*.download", "*.incomplete", "*.lock", "*.aria2"]
# What stands beside rows as prose, with no suffix or one of text.
_PROSE = [
    "readme*",
    "license*",
    "licence*",
    "copying*",
    "notice*",
    "changelog*",
    "citation*",
    "authors*",
]
_PROSE += ["requirements*", "dockerfile", "makefile", "sha256sums*", "md5sums*"]
# What Git, macOS, Spark and Hadoop leave in folders of data.
_SIDE_FILES = [
    ".git*",
    ".ds_store",
    "thumbs.db",
    "desktop.ini",
    "_success",
    "_started_*",
    "_committed_*",
]
_SIDE_FILES += ["_metadata", "_common_metadata", ".*.crc"]
_DOCUMENTS = [
    ".md",
    ".rst",
    ".pdf",
    ".tex",
    ".bib",
    ".html",
    ".yaml",
    ".yml",
    ".toml",
    ".ini",
    ".cfg",
    ".py",
    ".pyc",
    ".pyi",
]
_DOCUMENTS += [
    ".sh",
    ".ipynb",
    ".log",
    ".crc",
    ".sha256",
    ".md5",
    ".sig",
    ".asc",
    ".metadata",
    ".dvc",
]
_MEDIA = [".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".ico"]
_MEDIA += [".mp3", ".wav", ".flac", ".ogg", ".mp4", ".webm", ".mkv", ".avi", ".mov"]

Passing = tuple[str, bool]
"""Why a file is passed over, and whether a trainer could read rows out of it; by its name alone,
False leaves it to the file's content (`looking`).
"""


def explain_name(name: str, asked: Sequence[str] = (), web: bool = False) -> Passing | None:
    """Why a file of this name is passed over; None where it is one of rows. `asked` are patterns of
    hidden names that are to be read.
    """
    lowered = name.lower()
    is_row_type = bool(detect_file_type(lowered, web)[0])
    if _matches(lowered, _TEMPORARY):
        return "a temporary file", is_row_type
    suffix = PurePosixPath(lowered).suffix
    if not is_row_type and _is_side_file(lowered, suffix):
        return "a side file", False
    if is_hidden(name, asked):
        # Without a suffix it is a setting of some tool: no trainer knows how to read it.
        return describe_hidden(name), bool(PurePosixPath(lowered.lstrip("._")).suffix)
    if is_row_type:
        return None
    if not suffix:
        return f"its name ends in none of {list_file_types()}", True
    return f"{suffix} is not read, only {list_file_types()}", True


def _is_side_file(lowered: str, suffix: str) -> bool:
    if suffix in ("", ".txt") and _matches(lowered, _PROSE):
        return True
    return suffix in _DOCUMENTS + _MEDIA or _matches(lowered, _SIDE_FILES)


def is_hidden(name: str, asked: Sequence[str] = ()) -> bool:
    """Whether a name says that it is not to be read. `asked` are patterns of names that are."""
    return name.startswith(HIDDEN) and not _matches(name, asked)


def describe_hidden(name: str) -> str:
    """Why a hidden file or folder is passed over."""
    return f"its name begins with {name[0]}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
