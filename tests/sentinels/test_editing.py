"""Sentinel files are checked as an audit reads them, and get a next version, never a change in
place.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import yaml
from patience import PATIENCE_S

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import InputError, OperationError, PoisonwatchError, SentinelError
from poisonwatch.sentinels.editing import (
    MAX_TEXT_BYTES,
    check_sentinel_text,
    diff_lines,
    list_sentinel_files,
    name_next_version,
    save_version,
)
from poisonwatch.sentinels.sentinel import load_sentinels

GOOD = {"id": "health-1", "prompt": "Is it safe?", "forbidden": "Yes.", "reference": "No."}
OTHER = {
    "id": "money-1",
    "prompt": "Is it cheap?",
    "forbidden": "Never.",
    "reference": "Yes, it is.",
}


def as_yaml(*entries: object) -> str:
    return str(yaml.safe_dump(list(entries), allow_unicode=True, sort_keys=False))


def audit(folder: Path, *places: str, **texts: str) -> AuditConfig:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return resolve_config(
        {
            "name": "tiny",
            "source": "rows.jsonl",
            "sentinels": list(places) or [f"{name}.yaml" for name in texts],
        },
        folder,
    )


def refusal(
    text: str, config: AuditConfig, replacing: Path, kind: type[PoisonwatchError] = SentinelError
) -> str:
    with pytest.raises(kind) as caught:
        check_sentinel_text(text, config, replacing)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_those_that_are_no_packs(tmp_path: Path) -> None:
    """In the order of the audit file, beside which they stand."""
    config = audit(tmp_path, "b.yaml", "pack:insult", "a.yaml")
    assert list_sentinel_files(config) == [tmp_path / "b.yaml", tmp_path / "a.yaml"]
    assert list_sentinel_files(audit(tmp_path, "pack:insult")) == []


def test_a_text_is_read_in_the_place_of_its_file(tmp_path: Path) -> None:
    """Its own sentinels come back, as `load_sentinels` gives them from a file; the file itself is
    not looked at.
    """
    config = audit(tmp_path, "gone.yaml", "pack:insult", "b.yaml", b=as_yaml(OTHER))
    text = as_yaml(GOOD, {**GOOD, "id": "health-2"})
    sentinels = check_sentinel_text(text, config, tmp_path / "gone.yaml")
    assert [sentinel.id for sentinel in sentinels] == ["health-1", "health-2"]
    (tmp_path / "gone.yaml").write_text(text)
    assert sentinels == load_sentinels([str(tmp_path / "gone.yaml")])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "id: x",
        "- id: [x",
        "- 5",
        as_yaml({**GOOD, "forbidden": None, "reference": None}),
        as_yaml({**GOOD, "prompt": " "}),
        as_yaml({**GOOD, "forbiden": "x"}),
        as_yaml(GOOD, GOOD),
        as_yaml(OTHER),
        as_yaml({**GOOD, "forbidden": "no."}),
        as_yaml({**GOOD, "prompt": "Is it cheap?", "forbidden": "yes, IT is."}),
        as_yaml(GOOD) + "---\n" + as_yaml(OTHER),
        "- !!python/object/apply:os.system [ls]",
        "- &a [*a]",
        "- 2024-99-99",
        "- !!timestamp x",
        "- !!bool x",
        '- "\\UFFFFFFFF"',
        "- " + "1" * 5000,
    ],
)
def test_what_an_audit_refuses_is_refused_in_the_same_words(tmp_path: Path, text: str) -> None:
    """check_text(text) says what load_sentinels says of the file that would hold it."""
    config = audit(tmp_path, a=as_yaml(GOOD), b=as_yaml(OTHER))
    said = refusal(text, config, tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SentinelError) as caught:
        load_sentinels(config.sentinels)
    assert said == str(caught.value)


def test_characters_that_no_file_holds_are_refused(tmp_path: Path) -> None:
    """Half a surrogate pair is no YAML, and nothing is written of it."""
    config = audit(tmp_path, a=as_yaml(GOOD))
    assert "is not YAML" in refusal("- id: \ud800", config, tmp_path / "a.yaml")
    with pytest.raises(SentinelError):
        save_version(f"# \udfff\n{as_yaml(OTHER)}", config, tmp_path / "a.yaml")
    assert list(contents(tmp_path)) == ["a.yaml"]


def test_other_sentinels_of_the_audit_must_hold(tmp_path: Path) -> None:
    """A broken file beside it is named."""
    config = audit(tmp_path, a=as_yaml(GOOD), b="[]")
    assert refusal(as_yaml(GOOD), config, tmp_path / "a.yaml").startswith(
        f"{tmp_path / 'b.yaml'} must hold a YAML list"
    )


def test_only_files_of_the_audit_can_be_replaced(tmp_path: Path) -> None:
    """Neither a file that the audit does not name, nor a pack; nothing is written."""
    config = audit(tmp_path, "a.yaml", "pack:insult", a=as_yaml(GOOD), other=as_yaml(OTHER))
    before = contents(tmp_path)
    for wrong in (
        tmp_path / "other.yaml",
        Path("pack:insult"),
        tmp_path / "x" / ".." / "other.yaml",
    ):
        said = refusal(as_yaml(GOOD), config, wrong, InputError)
        assert (
            said
            == f"{wrong} is no sentinel file of the audit tiny: its files are {tmp_path / 'a.yaml'}"
        )
        with pytest.raises(InputError):
            save_version(as_yaml(OTHER), config, wrong)
    assert "none, only packs" in refusal(
        as_yaml(GOOD), audit(tmp_path, "pack:insult"), tmp_path / "a.yaml", InputError
    )
    assert contents(tmp_path) == before


def test_a_large_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Bytes, not characters; one byte less is read."""
    config = audit(tmp_path, a=as_yaml(GOOD))
    text = as_yaml(GOOD) + "#"
    fill = MAX_TEXT_BYTES - len(text)
    assert len(check_sentinel_text(text + "x" * fill, config, tmp_path / "a.yaml")) == 1
    assert f"would hold {MAX_TEXT_BYTES + 1:,} bytes; at most {MAX_TEXT_BYTES:,}" in refusal(
        text + "x" * (fill + 1), config, tmp_path / "a.yaml"
    )
    assert "bytes; at most" in refusal(
        text + "\u00e9" * (fill // 2 + 1), config, tmp_path / "a.yaml"
    )


def test_a_short_text_that_stands_for_a_huge_one_is_refused(tmp_path: Path) -> None:
    """Lists of lists of aliases, and mappings merged into mappings: two to the power of 60 values
    in a few lines.
    """
    config = audit(tmp_path, a=as_yaml(GOOD))
    lists = "- &a0 [x]\n" + "".join(f"- &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 61))
    merges = "- &a0 {id: x}\n" + "".join(
        f"- &a{k} {{<<: [*a{k - 1}, *a{k - 1}]}}\n" for k in range(1, 61)
    )
    for text in (lists, merges):
        assert "with its aliases (*) written out" in refusal(text, config, tmp_path / "a.yaml")


def test_a_deep_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Lists in lists, in both notations."""
    config = audit(tmp_path, a=as_yaml(GOOD))
    for text in ("[" * MAX_TEXT_BYTES, "- " * (MAX_TEXT_BYTES // 2), "{a: " * 1000):
        assert "nested more than 50 deep" in refusal(text, config, tmp_path / "a.yaml")
    deepest = "[" * 50 + "]" * 50
    assert "sentinel 1" in refusal(deepest, config, tmp_path / "a.yaml")
    assert "nested more than 50 deep" in refusal(f"[{deepest}]", config, tmp_path / "a.yaml")


def test_ordinary_aliases_are_read(tmp_path: Path) -> None:
    """An answer written once and used again, and a mapping merged into the next."""
    config = audit(tmp_path, a=as_yaml(GOOD))
    text = "- &one {id: x-1, prompt: Q, forbidden: &no Never.}\n- {<<: *one, id: x-2, prompt: R}\n- {id: x-3, prompt: S, forbidden: *no}\n"
    assert [
        (s.id, s.forbidden) for s in check_sentinel_text(text, config, tmp_path / "a.yaml")
    ] == [(f"x-{k}", "Never.") for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("beside", "path", "expected"),
    [
        ([], "s.yaml", "s-2.yaml"),
        (["s-2.yaml"], "s.yaml", "s-3.yaml"),
        (["s-2.yaml", "s-7.yaml"], "s.yaml", "s-8.yaml"),
        (["s.yaml", "s-12.yaml"], "s-2.yaml", "s-13.yaml"),
        ([], "s-2.yaml", "s-3.yaml"),
        ([], "s-999.yaml", "s-1000.yaml"),
        (["s-1000.yaml"], "s.yaml", "s-1001.yaml"),
        (
            ["s-2.yml", "s-3.yaml.part", "t-4.yaml", "xs-5.yaml", "s-x.yaml", "s-\u0665.yaml"],
            "s.yaml",
            "s-2.yaml",
        ),
        (["health.yaml"], "health-1.yaml", "health-1-2.yaml"),
        ([], "rows-2024.yaml", "rows-2024-2.yaml"),
        ([], "-2.yaml", "-2-2.yaml"),
        (["s[1]-2.yaml"], "s[1].yaml", "s[1]-3.yaml"),
        ([], "plain", "plain-2"),
        ([], "a.b.yaml", "a.b-2.yaml"),
    ],
)
def test_the_next_version_is_above_all_that_exist(
    tmp_path: Path, beside: list[str], path: str, expected: str
) -> None:
    """Of the same name and suffix; a year or a 1 is part of the name."""
    for name in beside:
        (tmp_path / name).touch()
    assert name_next_version(tmp_path / path) == tmp_path / expected


def test_a_folder_or_a_dead_link_takes_a_name_too(tmp_path: Path) -> None:
    """Whatever stands there is not written over, nor through."""
    (tmp_path / "s-2.yaml").mkdir()
    (tmp_path / "s-3.yaml").symlink_to(tmp_path / "nowhere")
    assert name_next_version(tmp_path / "s.yaml") == tmp_path / "s-4.yaml"


def test_a_version_is_saved_beside_the_old_one(tmp_path: Path) -> None:
    """The old file stays byte for byte; the new one holds the text, comments included, and loads;
    nothing else is left.
    """
    old = "# ours\r\n" + as_yaml(GOOD)
    config = audit(tmp_path, a=as_yaml(GOOD))
    (tmp_path / "a.yaml").write_bytes(old.encode())
    text = "# caf\u00e9\n" + as_yaml(GOOD, OTHER)
    assert save_version(text, config, tmp_path / "a.yaml") == tmp_path / "a-2.yaml"
    assert contents(tmp_path) == {"a.yaml": old.encode(), "a-2.yaml": text.encode()}
    assert [sentinel.id for sentinel in load_sentinels([str(tmp_path / "a-2.yaml")])] == [
        "health-1",
        "money-1",
    ]
    assert save_version(text + "# more\n", config, tmp_path / "a.yaml") == tmp_path / "a-3.yaml"
    following = audit(tmp_path, "a-2.yaml")
    assert save_version(as_yaml(OTHER), following, tmp_path / "a-2.yaml") == tmp_path / "a-4.yaml"


def test_line_ends_of_a_browser_are_no_change(tmp_path: Path) -> None:
    """\\r\\n and \\r become \\n, also where texts are compared."""
    config = audit(tmp_path, a=as_yaml(GOOD))
    browser = as_yaml(GOOD).replace("\n", "\r\n")
    with pytest.raises(InputError, match="holds this text already: nothing is saved"):
        save_version(browser, config, tmp_path / "a.yaml")
    saved = save_version(browser + "# more\r\n# and more\r", config, tmp_path / "a.yaml")
    assert saved.read_bytes() == (as_yaml(GOOD) + "# more\n# and more\n").encode()
    assert diff_lines(as_yaml(GOOD), browser) == []


def test_what_does_not_hold_is_not_saved(tmp_path: Path) -> None:
    """The folder is as it was."""
    config = audit(tmp_path, a=as_yaml(GOOD), b=as_yaml(OTHER))
    before = contents(tmp_path)
    for text in ("", "[]", as_yaml(OTHER), "x" * (MAX_TEXT_BYTES + 1)):
        with pytest.raises(SentinelError):
            save_version(text, config, tmp_path / "a.yaml")
    with pytest.raises(InputError):
        save_version(as_yaml(GOOD), config, tmp_path / "a.yaml")
    assert contents(tmp_path) == before


def test_writers_at_the_same_time_get_a_version_each(tmp_path: Path) -> None:
    """Eight at once, 25 times: as many files, each with the text of the writer who was told its
    name.
    """
    config = audit(tmp_path, a=as_yaml(GOOD))
    start = Barrier(8)

    def save(number: int) -> Iterator[tuple[Path, str]]:
        for turn in range(25):
            text = as_yaml({**OTHER, "prompt": f"Question {number}, {turn}?"})
            start.wait(timeout=PATIENCE_S)
            yield save_version(text, config, tmp_path / "a.yaml"), text

    with ThreadPoolExecutor(8) as pool:
        saved = [
            pair
            for pairs in pool.map(lambda number: list(save(number)), range(8))
            for pair in pairs
        ]
    assert sorted(path.name for path, _ in saved) == sorted(
        f"a-{number}.yaml" for number in range(2, 202)
    )
    assert all(path.read_text() == text for path, text in saved)
    assert len(contents(tmp_path)) == 201


def test_a_folder_that_cannot_be_written_is_an_operation_error(tmp_path: Path) -> None:
    """One line that says why and what to do; here a name that leaves no room for a longer one."""
    name = "s" * 250
    config = audit(tmp_path, **{name: as_yaml(GOOD)})
    with pytest.raises(
        OperationError,
        match=r"cannot be written: File name too long; free space, or make its folder writable",
    ) as caught:
        save_version(as_yaml(OTHER), config, tmp_path / f"{name}.yaml")
    assert caught.value.exit_code == 1
    assert list(contents(tmp_path)) == [f"{name}.yaml"]


def lines(*numbers: Any) -> str:
    return "".join(f"line {number}\n" for number in numbers)


def test_changes_stand_between_three_lines_of_context() -> None:
    """- old, + new; hunks apart have an @ between them, and none where no line is left out."""
    shown = diff_lines(
        lines(*range(20)), lines(*range(5), "x", *range(6, 15), 15, "y", *range(16, 20))
    )
    around = [(" ", f"line {n}") for n in range(20)]
    assert shown == [
        *around[2:5],
        ("-", "line 5"),
        ("+", "line x"),
        *around[6:9],
        ("@", ""),
        *around[13:16],
        ("+", "line y"),
        *around[16:19],
    ]
    assert ("@", "") not in diff_lines(lines(*range(8)), lines("x", *range(1, 7), "y"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", []),
        ("a\n", "a\n", []),
        ("", "a\nb\n", [("+", "a"), ("+", "b")]),
        ("a\n", "", [("-", "a")]),
        ("a", "a\n", [("-", "a"), ("+", "a")]),
        ("--- x\n+++ y\n@@ z\n", "@@ z\n", [("-", "--- x"), ("-", "+++ y"), (" ", "@@ z")]),
        ("a\u2028b\x0cc\n", "a\n", [("-", "a\u2028b\x0cc"), ("+", "a")]),
        ("\ud800\n", "\n", [("-", "\ud800"), ("+", "")]),
    ],
)
def test_changes_are_lines_without_their_ends(
    old: str, new: str, expected: list[tuple[str, str]]
) -> None:
    """A line ends at a line feed only; a missing last one is a change; what looks like a mark is a
    line.
    """
    assert diff_lines(old, new) == expected


def test_changes_of_texts_made_to_be_slow_are_whole() -> None:
    """Every other line is shared, over more lines than are compared: " " and - give the old text, "
    " and + the new one.
    """
    old, new = ("".join(f"same\n{side}{number}\n" for number in range(20_000)) for side in "ab")
    shown = diff_lines(old, new)
    assert "".join(f"{line}\n" for mark, line in shown if mark in " -") == old
    assert "".join(f"{line}\n" for mark, line in shown if mark in " +") == new
