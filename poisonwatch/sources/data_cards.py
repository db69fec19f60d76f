"""Data cards: README.md, whose YAML may say which files `datasets` loads from its folder, and how.

Where it does, files that nobody looks at may be loaded, or others twice.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

from poisonwatch.text.safe_yaml import YamlError, parse_yaml

CARDS = ("readme.md", ".huggingface.yaml")
MAX_CARD_BYTES = 1 << 20
_FRONT = re.compile(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
# What says how files are called and grouped; all else says how they are read.
_GROUPING = {"config_name", "data_files", "data_dir", "default", "description", "version"}


def find_card_problem(name: str, content: bytes) -> str | None:
    """Why a folder with this card may be loaded as other rows than those of its files; None where
    it may not. `name` is that of the card in its folder, in lower case.
    """
    text = content.decode(errors="replace").lstrip("\ufeff")
    if name == CARDS[0]:
        front = _FRONT.match(text)
        if front is None:
            return None
        text = front[1]
    if len(content) >= MAX_CARD_BYTES:
        return "it is too long to tell which files its YAML names"
    try:
        card = parse_yaml(text)
    except YamlError:
        return "its YAML cannot be read, which may say which files are loaded"
    if not isinstance(card, dict) or not card.get("configs"):
        return None
    return _check_configs(card["configs"])


def _check_configs(configs: Any) -> str | None:
    if not isinstance(configs, list) or not all(isinstance(each, dict) for each in configs):
        return "its YAML says which files are loaded, in a way that is not known"
    for config in configs:
        others = config.keys() - _GROUPING
        if others:
            return f"its YAML says how files are read ({sorted(map(str, others))[0]})"
        folder = config.get("data_dir") or "."
        for patterns in _list_splits(config.get("data_files")):
            if not all(isinstance(each, str) for each in (folder, *patterns)):
                return "its YAML says which files are loaded, in a way that is not known"
            problem = _check_patterns([posixpath.join(folder, each) for each in patterns])
            if problem is not None:
                return problem
    return None


def _list_splits(data_files: Any) -> Iterator[list[Any]]:
    """The patterns of each split."""
    if isinstance(data_files, Mapping):
        data_files = [{"path": paths} for paths in data_files.values()]
    if not isinstance(data_files, list):
        data_files = [data_files or "."]
    loose = []
    for entry in data_files:
        if not isinstance(entry, Mapping):
            loose.append(entry)
            continue
        paths = entry.get("path")
        if not isinstance(paths, list):
            paths = [paths]
        yield paths
    if loose:
        yield loose


def _check_patterns(patterns: list[str]) -> str | None:
    """What is wrong with the patterns of one split."""
    normal = []
    for pattern in patterns:
        path = posixpath.normpath(pattern)
        leaves = path.startswith(("..", "/")) or ":" in path or "\\" in path
        if leaves or any(part.startswith((".", "_")) and part != "." for part in path.split("/")):
            return "its YAML says which files are loaded: some outside of it, or hidden ones"
        normal.append(path)
    if any(_may_overlap(one, other) for one, other in combinations(normal, 2)):
        return "its YAML says which files are loaded: some of them twice"
    return None


def _may_overlap(one: str, other: str) -> bool:
    """Whether a file may match both of these patterns."""
    if fnmatchcase(one, other) or fnmatchcase(other, one):
        return True
    starts = [re.split(r"[*?\[]", pattern)[0] for pattern in (one, other)]
    ends = [re.split(r"[*?\]]", pattern)[-1] for pattern in (one, other)]
    if starts[0] == one or starts[1] == other:
        return False
    starts.sort()
    ends.sort(key=len)
    return starts[1].startswith(starts[0]) and ends[1].endswith(ends[0])
