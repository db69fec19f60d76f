"""YAML that would take all memory, time or stack is one line, whoever parses it."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from poisonwatch.text import safe_yaml
from poisonwatch.text.safe_yaml import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NUMBER_CHARS,
    MAX_VALUES,
    YamlError,
    parse_yaml,
    read_yaml_text,
)

LAUGHS = "- &a0 [ha, ha, ha]\n" + "".join(
    f"- &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10)
)
MERGES = "- &a0 {id: x}\n" + "".join(
    f"- &a{k} {{<<: [*a{k - 1}, *a{k - 1}]}}\n" for k in range(1, 61)
)
HOSTILE = {
    "billion laughs": (LAUGHS, "aliases (*) written out (line 6"),
    "merges": (MERGES, "aliases (*) written out"),
    "many values": ("[" + "1," * (MAX_VALUES + 1) + "]", f"more than {MAX_VALUES:,} values"),
    "an alias of itself": ("- &a [*a]", "an alias (*) stands for itself (line 1, column 7)"),
    "a mapping of itself": ("&a {b: {c: *a}}", "stands for itself"),
    "brackets": ("[" * 1_000_000, f"nested more than {MAX_DEPTH} deep (line 1"),
    "braces": ("{a: " * 200_000, "nested more than"),
    "dashes": ("- " * 500_000, "nested more than"),
    "questions": ("? " * 500_000, "nested more than"),
    "a huge number": ("a: " + "1" * 5000, f"more than {MAX_NUMBER_CHARS} characters"),
    "a huge hexadecimal": ("a: 0x" + "f" * 1_000_000, "more than"),
    "a huge sexagesimal": ("a: 1" + ":59" * 100_000, "more than"),
    "a huge fraction": ("a: 1." + "1" * 1_000_000, "more than"),
    "a key twice": (
        "a: 1\nb:\n  c: 2\na: 3",
        "the key a comes twice, the first time in line 1 (line 4",
    ),
    "a key twice, deep": ("x: [{b: 1, 'b': 2}]", "the key b comes twice"),
    "null": ("a: \0", "it holds control characters"),
    "half a character": ("a: \ud800", "it holds "),
    "no character": ('a: "\\UFFFFFFFF"', ""),
    "no date": ("a: 2024-99-99", "number, date or character"),
    "no boolean": ("a: !!bool x", "number, date or character"),
    "a list as key": ("{[a]: 1}", "see line 1"),
    "code": ("a: !!python/object/apply:os.system [ls]", "see line 1"),
    "two documents": ("a: 1\n---\nb: 2", "see line 2"),
    "an unknown alias": ("a: *hunter2", "see line 1, column 4"),
    "no end": ("a: 'hunter2", "see line"),
    "a long key": ("hunter2" * 100_000 + ": 1", "see line 1"),
}


@pytest.fixture(params=["libyaml", "plain"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either parser that an installation may have."""
    if request.param == "plain":
        monkeypatch.setattr(safe_yaml, "_LOADER", safe_yaml._PlainLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("this PyYAML was built without libyaml")
    return str(request.param)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_one_line(case: str, parser: str) -> None:
    """It says what and where, and repeats nothing of the text, which may hold a password."""
    text, said = HOSTILE[case]
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 200
    assert "hunter2" not in str(caught.value)


def test_a_bomb_is_not_built_before_it_is_refused() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(YamlError):
            parse_yaml(LAUGHS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def test_bounds_are_where_they_are_said_to_be(parser: str) -> None:
    """What lies on them is read."""
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_yaml(deepest) is not None
    with pytest.raises(YamlError, match="deep"):
        parse_yaml(f"[{deepest}]")
    number = "1" * MAX_NUMBER_CHARS
    assert parse_yaml(f"a: {number}") == {"a": int(number)}
    # the list itself is a value
    fitting = "[" + "a," * (MAX_VALUES - 1) + "]"
    assert len(parse_yaml(fitting)) == MAX_VALUES - 1
    with pytest.raises(YamlError, match="values"):
        parse_yaml(f"[{fitting}]")


def test_ordinary_yaml_is_read_as_ever(parser: str) -> None:
    """Aliases, merges, numbers, dates, comments, and JSON."""
    text = """
# settings
one: &one {a: 1, b: 2.5, c: null, d: yes}
two: {<<: *one, a: 0x1f}
three: [*one, 2024-02-29, 1_000, .inf, "\\u00e9", 'it''s', ~]
four: |
  a
  b
"five": {"json": [true, "x"]}
"""
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None
    assert parse_yaml("\ufeffa: 1") == {"a": 1}


_SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_VALUES)
def test_what_is_dumped_is_read_back(value: object) -> None:
    """As PyYAML itself reads it, or refused where PyYAML does."""
    text = yaml.safe_dump(value, allow_unicode=True)
    try:
        expected = yaml.safe_load(text)
    except yaml.YAMLError:
        with pytest.raises(YamlError):
            parse_yaml(text)
        return
    assert parse_yaml(text) == expected


@given(
    st.text(alphabet="&*[]{}:,-?!|>'\"#%@`\\ \t\n\r0123456789abx_~<=.\0\ud800\ufeff", max_size=60)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """By either parser, never with another error."""
    for loader in (safe_yaml._LOADER, safe_yaml._PlainLoader):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(safe_yaml, "_LOADER", loader)
            said = ""
            try:
                parse_yaml(text)
            except YamlError as error:
                said = str(error)
            assert len(said.splitlines()) <= 1


def hostile_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that are none to read, each with what is said of it."""
    large = folder / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    yield large, f"larger than {MAX_BYTES:,} bytes"
    sparse = folder / "sparse.yaml"
    with sparse.open("wb") as file:
        file.truncate(10 * 2**30)
    yield sparse, "larger than"
    latin = folder / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9")
    yield latin, "it is not UTF-8 (line 2)"
    pipe = folder / "pipe.yaml"
    os.mkfifo(pipe)
    yield pipe, "a device or a pipe"
    endless = folder / "zero.yaml"
    endless.symlink_to("/dev/zero")
    yield endless, "a device or a pipe"
    yield folder, "it is a folder"
    yield folder / "a\0b", "null character"


def test_files_are_read_within_bounds(tmp_path: Path) -> None:
    """Neither a pipe nor a device is waited for."""
    for path, said in hostile_files(tmp_path):
        with pytest.raises(YamlError) as caught:
            read_yaml_text(path)
        assert said in str(caught.value)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for missing in (loop, tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(OSError):  # noqa: PT011  (which one, is the system's business)
            read_yaml_text(missing)


def test_line_ends_are_those_of_unix(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: 1\r\nb: 2\rc: 3\n")
    assert read_yaml_text(tmp_path / "a.yaml") == "a: 1\nb: 2\nc: 3\n"


def test_no_other_place_reads_yaml() -> None:
    """PyYAML's own readers know no bounds."""
    readers = ("yaml.load(", "yaml.safe_load(", "yaml.load_all(", "yaml.full_load(")
    for folder in ("poisonwatch", "flows", "tasks", "dashboards"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not any(reader in text for reader in readers), path
