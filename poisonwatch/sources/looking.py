"""Whether what is passed over may hold rows all the same: what its name leaves open, its content
tells.
"""

from collections.abc import Callable

from poisonwatch.errors import SourceError
from poisonwatch.sources.beginnings import (
    HEAD_BYTES,
    TAIL_BYTES,
    has_row_suffix,
    is_parquet_summary,
    may_begin_rows,
)
from poisonwatch.sources.data_cards import CARDS, MAX_CARD_BYTES, find_card_problem
from poisonwatch.sources.file_types import detect_file_type
from poisonwatch.sources.side_files import APPLE_DOUBLE, Passing, explain_name
from poisonwatch.sources.trees import Tree

SUMMARIES = ("_metadata", "_common_metadata")
MAX_SUMMARY_BYTES = 16 << 20
BEGINS_LIKE_ROWS = ", but it may hold rows: it begins like them, or its name says so"


class Looker:
    """Looks into the files of a tree. `name_path` gives the name that stands for a path."""

    def __init__(self, tree: Tree, name_path: Callable[[str], str]) -> None:
        self._tree = tree
        self._name_path = name_path

    def look(self, path: str, name: str, passing: Passing) -> Passing:
        """Why a file is passed over, and whether it may hold rows, by its name (`passing`) and its
        content.
        """
        reason, by_name = passing
        if name.startswith("._") and self._read_head(path, len(APPLE_DOUBLE)) == APPLE_DOUBLE:
            return "what macOS keeps of another file", False
        if by_name:
            return passing
        if name.lower() in CARDS:
            problem = find_card_problem(name.lower(), self._read_head(path, MAX_CARD_BYTES))
            if problem is not None:
                return problem, True
        if self.may_begin_rows(path, name):
            return reason + BEGINS_LIKE_ROWS, True
        return passing

    def may_begin_rows(self, path: str, name: str) -> bool:
        """Whether a file may hold rows by its content. Where it cannot be looked into, it may."""
        shown = self._name_path(path)
        try:
            head = self._tree.read_head(path, shown, HEAD_BYTES)
            tail = head[-TAIL_BYTES:]
            if len(head) == HEAD_BYTES:
                tail = self._tree.read_tail(path, shown, TAIL_BYTES)
        # It leads nowhere: no trainer can read it either.
        except FileNotFoundError:
            return False
        except (OSError, SourceError):
            return True
        if name in SUMMARIES and is_parquet_summary(self._read_head(path, MAX_SUMMARY_BYTES)):
            return False
        return may_begin_rows(name, head, tail)

    def may_folder_hold_rows(self, folder: str) -> bool:
        """Whether a file below a folder may hold rows."""
        for path, name in self._tree.walk_files(folder):
            passing = explain_name(name)
            if passing is None or self.look(path, name, passing)[1]:
                return True
        return False

    def may_tool_folder_hold_rows(self, folder: str) -> bool:
        """The same of what a tool keeps for itself, by any names: those of rows count."""
        for path, name in self._tree.walk_files(folder):
            if detect_file_type(name)[0]:
                return True
            if has_row_suffix(name) and self.may_begin_rows(path, name):
                return True
        return False

    def _read_head(self, path: str, size: int) -> bytes:
        """The beginning of a file; nothing where it cannot be read."""
        try:
            return self._tree.read_head(path, self._name_path(path), size)
        except (OSError, SourceError):
            return b""
