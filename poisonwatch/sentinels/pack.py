import re
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from typing import Any
from urllib.parse import parse_qs

import yaml

from poisonwatch.errors import SentinelError
from poisonwatch.text.display import excerpt

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
        values = "&".join(f"{placeholder}=..." for placeholder in self.placeholders)
        return f"{PACK_PREFIX}{self.name}" + (f"?{values}" if values else "")


def list_shipped(folder: str) -> list[str]:
    """Names of the YAML files that ship with Poisonwatch in a folder."""
    entries = (resources.files("poisonwatch") / folder).iterdir()
    return sorted(
        entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")
    )


def read_shipped(folder: str, name: str) -> tuple[str, str]:
    """The comment that such a file starts with, on one line, and the whole text."""
    text = (resources.files("poisonwatch") / folder / f"{name}.yaml").read_text(encoding="utf-8")
    return " ".join(
        line.lstrip("# ")
        for line in takewhile(lambda line: line.startswith("#"), text.splitlines())
    ), text


def list_packs() -> list[str]:
    """Names of the packs that ship with Poisonwatch."""
    return list_shipped("sentinels/packs")


def read_pack(name: str) -> Pack:
    """A pack as it ships; its comment's first sentence is `about`. Raises SentinelError where there
    is none of that name.
    """
    if name not in list_packs():
        raise SentinelError(f"there is no pack {name}: packs are {', '.join(list_packs())}")
    comment, text = read_shipped("sentinels/packs", name)
    return Pack(
        name,
        comment.partition(". ")[0],
        tuple(dict.fromkeys(PLACEHOLDER.findall(text))),
        tuple(yaml.safe_load(text)),
    )


def fill_pack(place: str) -> Any:
    """A pack's entries, the values in the place of its placeholders."""
    name, _, query = place.removeprefix(PACK_PREFIX).partition("?")
    pack, given = read_pack(name), parse_qs(query, keep_blank_values=True)
    values = {key: " ".join(" ".join(texts).split()) for key, texts in given.items()}
    faults = [f"takes no value {excerpt(key)}" for key in values if key not in pack.placeholders]
    faults += [
        f"takes one value for {key}, not {len(texts)}"
        for key, texts in given.items()
        if key in pack.placeholders and len(texts) > 1
    ]
    faults += [
        f"needs a value for {placeholder}"
        for placeholder in pack.placeholders
        if not values.get(placeholder)
    ]
    if faults:
        encoding = " (in a value, %26 stands for & and %2B for +)" if pack.placeholders else ""
        raise SentinelError(f"the pack {name} {', '.join(faults)}: write {pack.place}{encoding}")

    def fill(
        part: Any,
    ) -> (
        Any
    ):  # after YAML is parsed, in one pass: a value is never read as YAML, nor as a placeholder
        if isinstance(part, dict):
            return {key: fill(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [fill(value) for value in part]
        return (
            PLACEHOLDER.sub(lambda found: values[found[1]], part) if isinstance(part, str) else part
        )

    return fill(pack.entries)
