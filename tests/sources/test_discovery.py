"""Which files a path stands for: everything below a folder, but for what is hidden, temporary, or
holds no rows; what a link leads to outside is refused.
"""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import OpenedSource
from poisonwatch.sources.files import open_files

LINE = b'{"prompt": "Q", "response": "A"}\n'


def put(folder: Path, *names: str, content: bytes = LINE) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def find(path: Path | str, base: Path, **more: object) -> OpenedSource:
    source = SourceConfig.model_validate({"path": str(path), **more})
    return open_files(source.with_base_folder(base), "source")


def names_of(found: OpenedSource) -> list[str]:
    return [unit.name for unit in found.units]


def passed(found: OpenedSource) -> dict[str, bool]:
    return {one.name: one.may_hold_rows for one in found.passed_over}


def refusal(path: Path | str, base: Path, **more: object) -> str:
    with pytest.raises(SourceError) as caught:
        find(path, base, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_is_read_with_all_below_it(tmp_path: Path) -> None:
    """Partitions of Hive, folders of the hub, one file an object; sorted by name."""
    put(
        tmp_path,
        "b.jsonl",
        "a/year=2024/month=01/x.jsonl",
        "a/year=2023/x.jsonl",
        "rows.jsonl/0.csv",
    )
    put(tmp_path, "data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl")
    found = find(tmp_path, tmp_path)
    assert names_of(found) == [
        "a/year=2023/x.jsonl",
        "a/year=2024/month=01/x.jsonl",
        "b.jsonl",
        "data/train-00000-of-00002.jsonl",
        "data/train-00001-of-00002.jsonl",
        "rows.jsonl/0.csv",
    ]
    assert not found.passed_over
    assert names_of(find(tmp_path / "a" / "year=*", tmp_path)) == names_of(found)[:2]


def test_hundreds_of_files_of_one_object_are_rows(tmp_path: Path) -> None:
    """One of each."""
    put(tmp_path, *(f"{i:03}.json" for i in range(300)))
    units = find(tmp_path, tmp_path).units
    assert len(units) == 300
    assert sum(len(list(unit.read())) for unit in units) == 300


def test_what_is_hidden_temporary_or_no_rows_is_passed_over_and_told(tmp_path: Path) -> None:
    """With whether a trainer could read rows out of it: what tools keep, prose and pictures hold
    none if they do not begin like rows; whatever else hides may.
    """
    put(tmp_path, "a.jsonl", ".b.jsonl", "_c.parquet", "d.txt", "e.zip", "n.md", ".old/x/k.jsonl")
    put(tmp_path, "g.jsonl.tmp", "x/.git/h.jsonl", "__pycache__/j.json", "x/README.md")
    put(tmp_path, "README.md", "f.png", "_docs/l.md", ".DS_Store", content=b"nothing")
    put(tmp_path, ".git/HEAD", ".cache/i.jsonl.lock", "o.jsonl.part", content=b"")
    put(tmp_path, "a.jsonl.sha256", content=b"0f" * 32 + b"  a.jsonl\n")
    put(tmp_path, "._a.jsonl", content=b"\x00\x05\x16\x07 of macOS")
    put(tmp_path, "._m.jsonl")
    found = find(tmp_path, tmp_path)
    assert names_of(found) == ["a.jsonl"]
    assert passed(found) == {
        ".DS_Store": False,
        "._a.jsonl": False,
        "._m.jsonl": True,
        "__pycache__": True,
        "a.jsonl.sha256": False,
        ".b.jsonl": True,
        ".cache": False,
        ".git": False,
        ".old": True,
        "README.md": False,
        "_c.parquet": True,
        "_docs": False,
        "d.txt": True,
        "e.zip": True,
        "f.png": False,
        "g.jsonl.tmp": True,
        "n.md": True,
        "o.jsonl.part": False,
        "x/.git": True,
        "x/README.md": True,
    }
    assert [one.name for one in found.passed_over] == sorted(passed(found))


def test_file_that_is_named_is_read_whatever_its_name_begins_with(tmp_path: Path) -> None:
    """Alone, below a hidden folder, and by a glob that says so."""
    put(tmp_path, "_a.jsonl", ".cache/b.jsonl", "c.jsonl")
    for path in ("_a.jsonl", ".cache/b.jsonl", "_*.jsonl", ".cache", ".cache/*", ".ca*/*.jsonl"):
        assert len(find(tmp_path / path, tmp_path).units) == 1, path
    found = find(tmp_path / "*", tmp_path)
    assert names_of(found) == ["c.jsonl"]
    assert passed(found) == {"_a.jsonl": True, ".cache": True}
    deep = find(tmp_path / "**" / "*.jsonl", tmp_path)
    assert (names_of(deep), passed(deep)) == (names_of(found), passed(found))


def test_folder_without_rows_says_what_is_there(tmp_path: Path) -> None:
    """The first three things that were passed over, why, and what is read."""
    put(tmp_path, ".a.jsonl", "b.txt", "c.md", "d.md", content=b"nothing")
    for path in (tmp_path, tmp_path / "*"):
        message = refusal(path, tmp_path)
        assert "holds no file of rows" in message
        assert ".a.jsonl (its name begins with .); b.txt (.txt is not read" in message
        assert "; c.md (a side file); and 1 more)" in message
        assert ".jsonl" in message.partition("must end in")[2]
    (tmp_path / "empty").mkdir()
    assert "holds no file of rows (nothing in it)" in refusal(tmp_path / "empty", tmp_path)


@pytest.mark.parametrize("link", ["a.jsonl", "sub"])
def test_link_that_leads_out_is_refused_unless_it_is_wanted(tmp_path: Path, link: str) -> None:
    """To a file or a folder, in a folder, by a glob, or named itself; the setting is named, and
    works.
    """
    put(tmp_path, "elsewhere/a.jsonl", "root/z.jsonl")
    target = {"a.jsonl": "../elsewhere/a.jsonl", "sub": "../elsewhere"}[link]
    (tmp_path / "root" / link).symlink_to(target)
    paths = {"a.jsonl": ["", "a.jsonl", "*.jsonl"], "sub": ["", "s*"]}[link]
    for path in paths:
        message = refusal(tmp_path / "root" / path, tmp_path)
        assert message.startswith(f"root/{link}"), path
        assert "`source.follow_links: true`" in message
        assert find(tmp_path / "root" / path, tmp_path, follow_links=True).units
    found = find(tmp_path / "root", tmp_path, follow_links=True)
    assert len(names_of(found)) == 2
    assert [len(list(unit.read())) for unit in found.units] == [1, 1]


def test_links_within_the_source_are_followed_and_end(tmp_path: Path) -> None:
    """A link to a file is a file of its own, as it is for a trainer; a folder is read once, by its
    own name where it has one that is read; the root may be a link.
    """
    put(tmp_path, "root/b/x.jsonl", "root/.store/y.jsonl")
    (tmp_path / "root" / "again.jsonl").symlink_to("b/x.jsonl")
    (tmp_path / "root" / "a").symlink_to("b")
    (tmp_path / "root" / "b" / "loop").symlink_to("..")
    (tmp_path / "root" / "store").symlink_to(".store")
    (tmp_path / "link").symlink_to("root")
    found = find(tmp_path / "link", tmp_path)
    assert names_of(found) == ["link/again.jsonl", "link/b/x.jsonl", "link/store/y.jsonl"]
    assert passed(found) == {"link/a": False, "link/b/loop": False, "link/.store": True}


def test_link_that_is_turned_elsewhere_after_it_was_found_is_not_followed(tmp_path: Path) -> None:
    """What was found is what is opened."""
    put(tmp_path, "root/a.jsonl")
    put(tmp_path, "secret.jsonl", content=b'{"prompt": "secret", "response": "secret"}\n')
    (tmp_path / "root" / "b.jsonl").symlink_to("a.jsonl")
    units = find(tmp_path / "root", tmp_path).units
    (tmp_path / "root" / "a.jsonl").unlink()
    (tmp_path / "root" / "a.jsonl").symlink_to("../secret.jsonl")
    for unit in units:
        with pytest.raises(SourceError, match=r"changed while it was read|cannot be read"):
            list(unit.read())


def test_file_name_that_is_not_utf8_is_shown_and_read(tmp_path: Path) -> None:
    """Its bytes as \\xff, a backslash as two, so that no two names become one."""
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.jsonl", b"caf\\xe9.jsonl", "naïve.jsonl".encode()):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(LINE)
    found = find(tmp_path, tmp_path)
    assert names_of(found) == ["caf\\\\xe9.jsonl", "caf\\xe9.jsonl", "naïve.jsonl"]
    for unit in found.units:
        (row,) = unit.read()
        assert row.source.encode().decode() == unit.name


def save(folder: Path, *splits: str, rows: int = 3, shards: int = 1) -> None:
    parts = {}
    for split in splits or ("train",):
        records = [{"prompt": f"{split} {i}", "response": "A"} for i in range(rows)]
        parts[split] = datasets.Dataset.from_list(records)
    if splits:
        datasets.DatasetDict(parts).save_to_disk(folder, num_shards=dict.fromkeys(parts, shards))
    else:
        parts["train"].save_to_disk(folder, num_shards=shards)


def prompts(found: OpenedSource) -> list[str]:
    return [row.record["prompt"] for unit in found.units for row in unit.read() if row.record]


def test_saved_data_set_is_read_where_it_stands(tmp_path: Path) -> None:
    """By its state.json, in its order, anywhere below the source; what lies beside its files is
    passed over, and may hold rows, as `datasets`' own cache does.
    """
    save(tmp_path / "x" / "ds", rows=6, shards=3)
    put(tmp_path / "x" / "ds", "cache-1.arrow", "extra.jsonl")
    put(tmp_path, "a.jsonl")
    state = json.loads((tmp_path / "x" / "ds" / "state.json").read_bytes())
    state["_data_files"].reverse()
    (tmp_path / "x" / "ds" / "state.json").write_text(json.dumps(state))
    found = find(tmp_path, tmp_path)
    assert names_of(found) == [
        "a.jsonl",
        *(f"x/ds/data-0000{i}-of-00003.arrow" for i in (2, 1, 0)),
    ]
    assert prompts(found) == ["Q", *(f"train {i}" for i in (4, 5, 2, 3, 0, 1))]
    assert passed(found) == {
        "x/ds/cache-1.arrow": True,
        "x/ds/dataset_info.json": False,
        "x/ds/extra.jsonl": True,
        "x/ds/state.json": False,
    }


def test_glob_reads_what_it_matches_of_a_saved_data_set(tmp_path: Path) -> None:
    """But for its descriptions, which hold no rows however they are found."""
    save(tmp_path / "ds")
    put(tmp_path / "ds", "extra.jsonl")
    for path in ("ds/*", "**"):
        found = find(tmp_path / path, tmp_path)
        assert names_of(found) == ["ds/data-00000-of-00001.arrow", "ds/extra.jsonl"]
        assert passed(found) == {"ds/dataset_info.json": False, "ds/state.json": False}


def test_description_that_names_no_files_says_nothing_of_those_there(tmp_path: Path) -> None:
    """They are read as anywhere."""
    put(tmp_path, "ds/state.json", content=b'{"_data_files": []}')
    put(tmp_path, "ds/dataset_info.json", content=b'{"features": {}}')
    assert "ds/state.json (describes a data set" in refusal(tmp_path / "ds", tmp_path)
    put(tmp_path, "ds/a.jsonl")
    assert names_of(find(tmp_path, tmp_path)) == ["ds/a.jsonl"]


def test_saved_splits_are_all_read(tmp_path: Path) -> None:
    """Each by its folder."""
    save(tmp_path / "ds", "train", "test")
    put(tmp_path / "ds", "other/a.jsonl")
    found = find(tmp_path / "ds", tmp_path)
    assert names_of(found) == [
        "ds/test/data-00000-of-00001.arrow",
        "ds/train/data-00000-of-00001.arrow",
    ]
    assert prompts(found)[0] == "test 0"
    assert passed(found)["ds/other"] is True
    assert passed(found)["ds/dataset_dict.json"] is False


def test_saved_data_set_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    """A file or split that is gone; a description that is none leaves the files as they are."""
    save(tmp_path / "ds", "train", "test")
    (tmp_path / "ds" / "test" / "data-00000-of-00001.arrow").unlink()
    message = refusal(tmp_path / "ds", tmp_path)
    assert message.startswith("ds/test is not complete: its state.json names 'data-00000-of-00001")
    for path in (tmp_path / "ds" / "test").iterdir():
        path.unlink()
    (tmp_path / "ds" / "test").rmdir()
    assert "ds is not complete: its dataset_dict.json names the split 'test'" in refusal(
        tmp_path / "ds", tmp_path
    )
    put(tmp_path, "states/state.json", content=b'[{"prompt": "Capital of Ohio?", "response": "C"}]')
    assert prompts(find(tmp_path / "states", tmp_path)) == ["Capital of Ohio?"]


def test_descriptions_of_data_sets_are_no_rows(tmp_path: Path) -> None:
    """LLaMA-Factory's list is one of them."""
    put(tmp_path, "a.jsonl", "dataset_infos.json/b.jsonl")
    catalogue = {"a": {"file_name": "a.jsonl", "columns": {"prompt": "prompt"}}}
    put(tmp_path, "dataset_info.json", content=json.dumps(catalogue).encode())
    found = find(tmp_path, tmp_path)
    assert names_of(found) == ["a.jsonl", "dataset_infos.json/b.jsonl"]
    (one,) = found.passed_over
    assert (one.name, one.may_hold_rows) == ("dataset_info.json", False)
    assert "`source.fields`" in one.reason


def test_release_in_a_source_is_read_without_its_accounts(tmp_path: Path) -> None:
    """They are no rows to audit; a trainer that is given the folder would take them for some."""
    put(tmp_path, "a.jsonl", "out/clean.jsonl", "out/quarantine.jsonl", "out/rejected.jsonl")
    put(tmp_path, "out/manifest.json", content=b'{"manifest": 2, "rows": []}')
    put(tmp_path, "other/manifest.json", "other/rejected.jsonl")
    found = find(tmp_path, tmp_path)
    assert names_of(found) == [
        "a.jsonl",
        "other/manifest.json",
        "other/rejected.jsonl",
        "out/clean.jsonl",
    ]
    names = ("manifest.json", "quarantine.jsonl", "rejected.jsonl")
    assert passed(found) == {f"out/{name}": True for name in names}


def test_pipes_in_a_folder_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    """By the name of a file of rows, or of a description."""
    put(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "state.json")
    assert refusal(tmp_path, tmp_path).startswith("state.json is a pipe")
    (tmp_path / "state.json").unlink()
    os.mkfifo(tmp_path / "._b.jsonl")
    assert passed(find(tmp_path, tmp_path)) == {"._b.jsonl": True}


def test_stream_format_of_saved_files_is_not_asked_for(tmp_path: Path) -> None:
    """A saved data set may hold files in either of Arrow's formats."""
    save(tmp_path / "ds")
    table = pa.table({"prompt": ["file format"], "response": ["A"]})
    with pa.ipc.new_file(str(tmp_path / "ds" / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
    assert prompts(find(tmp_path / "ds", tmp_path)) == ["file format"]
