"""Sentinels that ship with Poisonwatch, and the reader of files that ship."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from typing import Any
from urllib.parse import parse_qs

from poisonwatch.errors import SentinelError
from poisonwatch.text.display import quote_spaced
from poisonwatch.text.safe_yaml import parse_yaml

PACK_PREFIX = "pack:"

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Pack:
    """Sentinels that ship with Poisonwatch: `about` says what they guard; one with `placeholders`
    is a template.
    """

    name: str
    about: str
    placeholders: tuple[str, ...]
    entries: tuple[dict[str, Any], ...]

    @property
    def place(self) -> str:
        """How `sentinels` names the pack, with ... for each value of a template."""
        place = f"{PACK_PREFIX}{self.name}"
        if self.placeholders:
            place += "?" + "&".join(f"{placeholder}=..." for placeholder in self.placeholders)
        return place


def list_shipped(folder: str) -> list[str]:
    """Names of the YAML files that ship with Poisonwatch in a folder."""
    # Through importlib: a wheel may be read from a zip file, where there are no paths.
    names = []
    for entry in (resources.files("poisonwatch") / folder).iterdir():
        if entry.name.endswith(".yaml"):
            names.append(entry.name.removesuffix(".yaml"))
    return sorted(names)


def read_shipped(folder: str, name: str) -> tuple[str, str]:
    """The comment that such a file starts with, on one line, and the whole text."""
    text = (resources.files("poisonwatch") / folder / f"{name}.yaml").read_text(encoding="utf-8")
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in comment), text


def list_packs() -> list[str]:
    """Names of the packs that ship with Poisonwatch."""
    return list_shipped("sentinels/packs")


def suggest_pack(name: str) -> str | None:
    """The pack whose name is most like this one; None where none is like it."""
    return next(iter(difflib.get_close_matches(name.lower(), list_packs(), n=1)), None)


def read_pack(name: str) -> Pack:
    """A pack as it ships; its comment's first sentence is `about`. Raises SentinelError where there
    is none of that name.
    """
    if name not in list_packs():
        nearest = suggest_pack(name)
        hint = "" if nearest is None else f", the nearest is {nearest}"
        raise SentinelError(
            f"there is no pack {quote_spaced(name)}{hint}: packs are {', '.join(list_packs())}"
        )
    comment, text = read_shipped("sentinels/packs", name)
    return Pack(
        name=name,
        about=comment.partition(". ")[0],
        # A dict keeps the order in which they come, which a set would lose.
        placeholders=tuple(dict.fromkeys(PLACEHOLDER.findall(text))),
        entries=tuple(parse_yaml(text)),
    )


def fill_pack(place: str) -> Any:
    """A pack's entries, the values in the place of its placeholders. Raises SentinelError where the
    values given are not those of its placeholders.
    """
    name, _, query = place.removeprefix(PACK_PREFIX).partition("?")
    # A blank value is kept, so that it is named as missing and not as unknown.
    pack, given = read_pack(name), parse_qs(query, keep_blank_values=True)
    # On one line: a value with line ends would leave the sentence that it is put in.
    values = {key: " ".join(" ".join(texts).split()) for key, texts in given.items()}
    faults = _find_faults(pack, given, values)
    if faults:
        encoding = ""
        if pack.placeholders:
            encoding = " (in a value, %26 stands for & and %2B for +)"
        raise SentinelError(f"the pack {name} {', '.join(faults)}: write {pack.place}{encoding}")
    return _fill(pack.entries, values)


def _find_faults(
    pack: Pack, given: Mapping[str, Sequence[str]], values: Mapping[str, str]
) -> list[str]:
    """What is wrong with the values given to a pack, each in a few words."""
    unknown, repeated = [], []
    for key, texts in given.items():
        if key not in pack.placeholders:
            unknown.append(f"takes no value {quote_spaced(key)}")
        elif len(texts) > 1:
            repeated.append(f"takes one value for {key}, not {len(texts)}")
    missing = []
    for key in pack.placeholders:
        if not values.get(key):
            missing.append(f"needs a value for {key}")
    return unknown + repeated + missing


def _fill(part: Any, values: Mapping[str, str]) -> Any:
    """A part of a pack with values in the place of its placeholders, whatever is nested in it."""
    # After YAML is parsed, and in one pass: a value is never read as YAML, nor as a placeholder.
    if isinstance(part, dict):
        return {key: _fill(value, values) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_fill(value, values) for value in part]
    if isinstance(part, str):
        return PLACEHOLDER.sub(lambda found: values[found[1]], part)
    return part
