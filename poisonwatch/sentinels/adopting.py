"""Sentinels that somebody adds to an audit: written as a new version of its sentinel file, and
named in the audit file, so that the next audit asks them.

Of the audit file only the place of the sentinel file is changed, comments and all else stay; where
that cannot be done surely, nothing is changed, and the line to change is said.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import ScalarNode, SequenceNode

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError, InputError, OperationError, PoisonwatchError
from poisonwatch.sentinels.editing import (
    list_sentinel_files,
    list_versions,
    name_next_version,
    save_version,
)
from poisonwatch.sentinels.sentinel import (
    Sentinel,
    load_sentinels,
    parse_sentinels,
    read_sentinel_text,
    refuse_clashes,
)
from poisonwatch.text.environment import expand_home
from poisonwatch.text.safe_yaml import locate_scalar_text, locate_yaml_value, read_yaml_text

FIRST_FILE = "sentinels.yaml"


@dataclass(frozen=True, slots=True)
class Adoption:
    """Sentinels that the next audit asks: in the file `saved`, which the audit file names in the
    place of `replaced`, or beside its packs (None).
    """

    saved: Path
    replaced: Path | None
    audit_file: Path

    @property
    def undo(self) -> str:
        """How it is taken back, in one line."""
        if self.replaced is None:
            return f"take {self.saved.name} out of `sentinels` in {self.audit_file}"
        return (
            f"name {self.replaced.name} instead of {self.saved.name} in `sentinels` of "
            f"{self.audit_file}"
        )


def append_sentinels(text: str, piece: str) -> str:
    """The text of a sentinel file with a piece of a list behind it."""
    return f"{text.rstrip()}\n\n{piece}" if text.strip() else piece


def adopt_sentinels(piece: str, audit_file: Path) -> Adoption:
    """Add sentinels, a YAML list `piece`, to those of an audit, in the first of its sentinel files.

    Raises SentinelError and InputError as `save_version` does, ConfigError where the audit file
    cannot be changed surely, and OperationError where a folder cannot be written. Then nothing of
    the audit has changed.
    """
    with _alone_in(audit_file.resolve().parent):
        return _adopt(piece, audit_file)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Of two that add sentinels at once, one waits: else the second would leave out the first's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        # What is wrong with it is said where the audit file is read.
        yield
        return
    try:
        # Some file systems know no locks.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _adopt(piece: str, audit_file: Path) -> Adoption:
    # Read anew: the audit file may have changed meanwhile.
    config = load_config(audit_file)
    files = list_sentinel_files(config)
    parse_sentinels(piece, "the proposal")
    if not files:
        return _adopt_first(piece, config, audit_file)
    replaced = files[0]
    text = append_sentinels(read_sentinel_text(str(replaced)), piece)
    saved = _find_left(text, replaced)
    if saved is not None:
        _name_in_audit_file(audit_file, replaced, saved)
        return Adoption(saved, replaced, audit_file)
    saved = save_version(text, config, replaced)
    try:
        _name_in_audit_file(audit_file, replaced, saved)
    except PoisonwatchError:
        with suppress(OSError):
            saved.unlink()
        raise
    return Adoption(saved, replaced, audit_file)


def _find_left(text: str, replaced: Path) -> Path | None:
    """The last version of a file where it holds this text already: whoever saved it was killed
    before the audit file named it.
    """
    versions = list_versions(replaced)
    if not versions or read_sentinel_text(str(versions[-1])) != text:
        return None
    return versions[-1]


def check_adoption(piece: str, config: AuditConfig) -> list[Sentinel]:
    """The sentinels of a YAML list beside those of an audit. Raises SentinelError as
    `load_sentinels` does.
    """
    own = parse_sentinels(piece, "the proposal")
    refuse_clashes([*load_sentinels(config.sentinels), *own], [*config.sentinels, "the proposal"])
    return own


def _adopt_first(piece: str, config: AuditConfig, audit_file: Path) -> Adoption:
    """A sentinel file where the audit has packs alone."""
    check_adoption(piece, config)
    saved = audit_file.resolve().parent / FIRST_FILE
    while saved.exists():
        saved = name_next_version(saved)
    try:
        with replace_file(saved) as part:
            part.write_text(piece, encoding="utf-8", newline="\n")
        _name_in_audit_file(audit_file, None, saved)
    except OSError as error:
        raise OperationError(
            f"{saved} cannot be written: {error.strerror}; free space, or make its folder writable"
        ) from error
    except PoisonwatchError:
        with suppress(OSError):
            saved.unlink()
        raise
    return Adoption(saved, None, audit_file)


def _name_in_audit_file(audit_file: Path, old: Path | None, new: Path) -> None:
    """Name a file of sentinels in the place of another, or behind all others (None)."""
    # What a link leads to is changed, and not the link.
    audit_file = audit_file.resolve()
    text = read_yaml_text(audit_file)
    line_end = "\r\n" if b"\r\n" in audit_file.read_bytes() else "\n"
    before = load_config(audit_file)
    changed = _change_text(text, audit_file, old, new)
    if changed is not None:
        wanted = [str(new) if old is not None and Path(p) == old else p for p in before.sentinels]
        if old is None:
            wanted.append(str(new))
        try:
            with replace_file(audit_file) as part:
                part.write_text(changed, encoding="utf-8", newline=line_end)
                shutil.copymode(audit_file, part)
                # What is read of it is checked before it takes the place of the old.
                after = load_config(part)
                same = after.model_copy(update={"sentinels": before.sentinels}) == before
                if not same or [Path(p) for p in after.sentinels] != [Path(p) for p in wanted]:
                    raise ConfigError("it would say something else")
            return
        except OSError as error:
            raise OperationError(
                f"{audit_file} cannot be written: {error.strerror}; make it writable"
            ) from error
        except InputError:
            pass
    instead = "beside what is there" if old is None else f"instead of {old.name}"
    raise ConfigError(
        f"{audit_file} is written in a way that is not changed by itself: name "
        f"{_shorten(new, audit_file)} in its `sentinels`, {instead}, and write that file by hand"
    )


def _change_text(text: str, audit_file: Path, old: Path | None, new: Path) -> str | None:
    """The audit file's text with the new place in it; None where it is not clear where."""
    value = locate_yaml_value(text, "sentinels")
    place = _shorten(new, audit_file)
    if value is None:
        return None
    if old is not None:
        folder = audit_file.resolve().parent
        items = value.value if isinstance(value, SequenceNode) else [value]
        for item in items:
            if isinstance(item, ScalarNode) and folder / expand_home(item.value) == old:
                # An anchor stays, also one that nothing uses yet.
                begins = locate_scalar_text(text, item)
                return text[:begins] + _quote(place) + text[item.end_mark.index :]
        return None
    if isinstance(value, ScalarNode):
        begins, ends = value.start_mark.index, value.end_mark.index
        return f"{text[:begins]}[{text[begins:ends].strip()}, {_quote(place)}]{text[ends:]}"
    if not isinstance(value, SequenceNode) or not value.value:
        return None
    last = value.value[-1]
    end = last.end_mark.index
    if value.flow_style:
        return f"{text[:end]}, {_quote(place)}{text[end:]}"
    indent = " " * value.start_mark.column
    # A comment behind the last one stays behind it.
    line, _, rest = text[end:].partition("\n")
    return f"{text[:end]}{line}\n{indent}- {_quote(place)}\n{rest}"


def _quote(place: str) -> str:
    """A place as it stands in any list of YAML."""
    return yaml.safe_dump([place], default_flow_style=True, width=10_000).strip()[1:-1]


def _shorten(path: Path, audit_file: Path) -> str:
    """The path as it stands in the audit file."""
    path, folder = path.resolve(), audit_file.resolve().parent
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    return str(path)
