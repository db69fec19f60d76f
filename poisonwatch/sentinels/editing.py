"""Editing the sentinel files of an audit: a change is checked as an audit would read it, and
becomes a file of its own.

No file is ever changed in place, so that past audits stay what they were: `sentinels.yaml` is
followed by `sentinels-2.yaml`, which the audit reads once its `sentinels` name it.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from uuid import uuid4

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError, OperationError, SentinelError
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.sentinels.sentinel import (
    Sentinel,
    parse_sentinels,
    read_sentinel_text,
    read_sentinels,
    refuse_clashes,
)
from poisonwatch.text.diff import align_sequences
from poisonwatch.text.words import unify_line_ends

MAX_TEXT_BYTES = 250_000  # of a text that a browser sends; reading it takes seconds
CONTEXT_LINES = 3  # lines shown around a change
# No more digits: a year is part of the name.
_VERSION = re.compile(r"(?<=.)-(?:[2-9]|[1-9][0-9]{1,2})\Z", re.DOTALL)


def list_sentinel_files(config: AuditConfig) -> list[Path]:
    """The files among the audit's sentinels, in order; packs are none."""
    return [Path(place) for place in config.sentinels if not place.startswith(PACK_PREFIX)]


def check_sentinel_text(text: str, config: AuditConfig, replacing: Path) -> list[Sentinel]:
    """The sentinels of a YAML text, read in the place of a file of the audit, beside all its other
    sentinels.

    Raises SentinelError as `load_sentinels` does, and where the text is too large; InputError where
    the audit has no such file.
    """
    files = list_sentinel_files(config)
    if replacing not in files:
        known = ", ".join(map(str, files)) or "none, only packs"
        raise InputError(
            f"{replacing} is no sentinel file of the audit {config.name}: its files are {known}"
        )
    _refuse_excess(text, replacing)
    own: list[Sentinel] = []
    everything: list[Sentinel] = []
    # In the order of the audit file: the errors about clashes name places in it.
    for place in config.sentinels:
        if not place.startswith(PACK_PREFIX) and Path(place) == replacing:
            own = parse_sentinels(text, place)
            everything += own
        else:
            everything += read_sentinels(place)
    refuse_clashes(everything, config.sentinels)
    return own


def _refuse_excess(text: str, replacing: Path) -> None:
    """Raise SentinelError where reading a text takes too long for a page that is waited for."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEXT_BYTES:
        raise SentinelError(
            f"{replacing} would hold {size:,} bytes; at most {MAX_TEXT_BYTES:,} are allowed: "
            "split it into several files"
        )


def list_versions(path: Path) -> list[Path]:
    """The numbered versions of a sentinel file, itself among them if it is one, oldest first."""
    found: dict[int, Path] = {}
    for beside in path.parent.iterdir():
        number = _parse_version(beside, path)
        if number:
            found[number] = beside
    # By number, not by name: -10 comes after -9.
    return [found[number] for number in sorted(found)]


def name_next_version(path: Path) -> Path:
    """What the next version of a sentinel file is called: its name with the first number above all
    that stand beside it.
    """
    last = max(_parse_version(beside, path) or 1 for beside in (path, *path.parent.iterdir()))
    return path.with_name(f"{_strip_version(path)}-{last + 1}{path.suffix}")


def _parse_version(version: Path, path: Path) -> int | None:
    """Which version of `path` a file is, by its name; None where it is none."""
    match = re.fullmatch(
        rf"{re.escape(_strip_version(path))}-([1-9][0-9]*){re.escape(path.suffix)}", version.name
    )
    if match is None:
        return None
    return int(match[1])


def _strip_version(path: Path) -> str:
    return _VERSION.sub("", path.stem)


def save_version(text: str, config: AuditConfig, replacing: Path) -> Path:
    """Write a text as the next version of a file of the audit, and return where; line ends become
    \\n, as browsers send others.

    The name is reserved before it is filled, so that nobody's version is ever written over. Raises
    as `check_sentinel_text` does, InputError where the text is that of the file or of its last
    version already, OperationError where the folder cannot be written.
    """
    text = unify_line_ends(text)
    check_sentinel_text(text, config, replacing)
    for held in (replacing, *list_versions(replacing)[-1:]):
        if text == read_sentinel_text(str(held)):
            raise InputError(f"{held} holds this text already: nothing is saved")
    # A part of its own name for each that saves: two must not write into one.
    part = replacing.with_name(f"{replacing.name}.{uuid4().hex}.part")
    try:
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            # Who reads the old one, such as a service's user, reads the new one.
            shutil.copymode(replacing, part)
            # Reserved once the text is on the disk: where it does not fit, no number is used up.
            saved = _reserve_name(replacing)
            part.replace(saved)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OperationError(
            f"the next version of {replacing} cannot be written: {error.strerror}; "
            "free space, or make its folder writable"
        ) from error
    return saved


def _reserve_name(path: Path) -> Path:
    """The next version, there and empty: of two that want a name at the same time, one goes on to
    the next.
    """
    while True:
        path = name_next_version(path)
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path


def diff_lines(old: str, new: str) -> list[tuple[str, str]]:
    """The lines that differ, as (mark, line without its end): "-" only in `old`, "+" only in `new`,
    " " in both, CONTEXT_LINES around.

    ("@", "") stands where lines are left out between two changes. Line ends of other systems make
    no difference.
    """
    lines = _pair_lines(unify_line_ends(old), unify_line_ends(new))
    near = _find_near_changes(lines)
    shown: list[tuple[str, str]] = []
    for k, (mark, line) in enumerate(lines):
        if k not in near:
            continue
        if shown and k - 1 not in near:
            shown.append(("@", ""))
        shown.append((mark, line.removesuffix("\n")))
    return shown


def _pair_lines(old: str, new: str) -> list[tuple[str, str]]:
    """Every line of either text as (mark, line with its end), lines of `old` first where they
    differ.
    """
    # Only \n ends a line here; splitlines would split at a form feed, too.
    before, after = list(StringIO(old)), list(StringIO(new))
    lines: list[tuple[str, str]] = []
    i = j = 0
    # A pair past both ends closes the last stretch of lines that differ.
    pairs = [*sorted(align_sequences(before, after).items()), (len(before), len(after))]
    for place, partner in pairs:
        lines += _mark_lines("-", before[i:place])
        lines += _mark_lines("+", after[j:partner])
        lines += _mark_lines(" ", before[place : place + 1])
        i, j = place + 1, partner + 1
    return lines


def _mark_lines(mark: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    return [(mark, line) for line in lines]


def _find_near_changes(lines: Sequence[tuple[str, str]]) -> set[int]:
    """The places of lines that differ, and of those around them; some lie outside."""
    near: set[int] = set()
    for k, (mark, _) in enumerate(lines):
        if mark != " ":
            near.update(range(k - CONTEXT_LINES, k + CONTEXT_LINES + 1))
    return near
