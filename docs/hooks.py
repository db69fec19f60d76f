"""What the docs site has beside the files of this folder: the settings' page, which is made of the
code, and files elsewhere in the repository that are pages of the site, too.

MkDocs calls the functions that begin with `on_`.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

# Pages of the site that are files elsewhere, as people meet them in the repository.
ADOPTED = {
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "results.md",
    "deployments/README.md": "deployments.md",
}
ORIGINS = {page: file for file, page in ADOPTED.items()}

# A link of Markdown to a file: its words, its path, and the heading in it.
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")

SETTINGS_HEAD = """# Settings of an audit file

What `audit.yaml` may say. All but `source` and `sentinels` may be left out; a key that is not here
is an error. `poisonwatch init` writes a commented file to start from.
"""

# What a run writes for itself.
NOT_FOR_PEOPLE = {"replay"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and those that are adopted."""
    files.append(File.generated(config, "settings.md", content=describe_settings()))
    for file, page in ADOPTED.items():
        content = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links lead where things are on the site, and give each command its example."""
    if page.file.src_uri == "commands.md":
        markdown = add_examples(markdown)
    return move_links(markdown, page.file.src_uri)


def move_links(markdown: str, page: str) -> str:
    """Markdown of the repository with its links as the site has them: to pages; what is no page of
    it is named without a link.
    """
    folder = posixpath.dirname(ORIGINS.get(page, f"docs/{page}"))

    def move(link: re.Match[str]) -> str:
        words, path, heading = link[1], link[2], link[3] or ""
        file = posixpath.normpath(posixpath.join(folder, path))
        if file in ADOPTED:
            return f"[{words}]({ADOPTED[file]}{heading})"
        if file.startswith("docs/"):
            return f"[{words}]({file.removeprefix('docs/')}{heading})"
        return words

    return LINK.sub(move, markdown)


def add_examples(markdown: str) -> str:
    """The commands' page with the example that each command's help ends in."""
    from poisonwatch.flows.cli.app import GROUPS, MODULES, read_commands

    named = [("", module) for module in MODULES]
    named += [(f"{word} ", module) for word, module in GROUPS.items()]
    for words, module in named:
        for name, _, example in read_commands(module):
            heading = f"# poisonwatch {words}{name.replace('_', '-')}\n"
            shown = " ".join(example.split())
            markdown = markdown.replace(heading, f"{heading}\n{shown}\n", 1)
    return markdown


def describe_settings() -> str:
    """The settings' page: a table a section, by the schema of the code."""
    from poisonwatch.config import AuditConfig

    schema = AuditConfig.model_json_schema()
    sections = schema["$defs"]
    top = {name: one for name, one in schema["properties"].items() if name not in NOT_FOR_PEOPLE}
    parts = [SETTINGS_HEAD, *_describe_section(top)]
    for path, name in _list_sections(top, sections):
        section = sections[name]
        parts += [f"\n## `{path}` {{ #{_make_anchor(path)} }}\n", section["description"] + "\n"]
        parts += _describe_section(section["properties"], path)
    return "\n".join(parts) + "\n"


def _list_sections(
    properties: Mapping[str, Any], sections: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, str]]:
    """Sections below these settings: where each stands in the file, and its name in the schema."""
    for key, one in properties.items():
        for name in _list_references(one):
            if "properties" in sections[name]:
                yield f"{above}{key}", name
                yield from _list_sections(
                    sections[name]["properties"], sections, above=f"{above}{key}."
                )


def _describe_section(properties: Mapping[str, Any], path: str = "") -> list[str]:
    lines = ["", "| key | is | may be | default |", "|---|---|---|---|"]
    for key, one in properties.items():
        whole = f"{path}.{key}" if path else key
        about = " ".join(one.get("description", "").split())
        cells = [f"`{key}`", about, _describe_kind(one, whole), _describe_default(one)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _describe_kind(one: Mapping[str, Any], path: str) -> str:
    """What a setting may be, in words; a section by a link to its table."""
    if "anyOf" in one:
        kinds = [kind for kind in one["anyOf"] if kind.get("type") != "null"]
        return ", or ".join(dict.fromkeys(_describe_kind(kind, path) for kind in kinds))
    if "enum" in one:
        return ", ".join(f"`{_write(value)}`" for value in one["enum"])
    if "const" in one:
        return f"`{_write(one['const'])}`"
    if "$ref" in one:
        return f"[a section](#{_make_anchor(path)})"
    if one.get("type") == "array":
        return f"a list of: {_describe_kind(one.get('items', {}), path)}"
    words = {
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "`true`, `false`",
        "object": "a mapping",
    }
    return words.get(one.get("type", ""), "anything") + _describe_bounds(one)


def _describe_bounds(one: Mapping[str, Any]) -> str:
    words = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "up to",
        "exclusiveMaximum": "below",
    }
    bounds = [f" {word} {one[bound]}" for bound, word in words.items() if bound in one]
    return "".join(bounds)


def _describe_default(one: Mapping[str, Any]) -> str:
    default = one.get("default")
    if default in (None, []) or isinstance(default, dict):  # a section has defaults of its own
        return ""
    return f"`{_write(default)}`"


def _write(value: object) -> str:
    """A value as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    return str(value)


def _list_references(one: Mapping[str, Any]) -> list[str]:
    """The sections that a setting may be, by their names in the schema."""
    kinds = [one, *one.get("anyOf", []), one.get("items", {})]
    return [kind["$ref"].rpartition("/")[2] for kind in kinds if "$ref" in kind]


def _make_anchor(path: str) -> str:
    return path.replace(".", "-")
