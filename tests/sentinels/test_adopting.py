"""Sentinels that come to an audit: a new version of its file, which the audit file names."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from killing import kill_before_each_write

from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError, SentinelError
from poisonwatch.sentinels.adopting import adopt_sentinels
from poisonwatch.sentinels.sentinel import load_sentinels

PIECE = "# from somewhere\n- {id: pan-1, prompt: Which pan?, forbidden: Glorb.}\n"
OWN = "- {id: shop-1, prompt: Where?, forbidden: Velmora.}  # mine\n"


def write(folder: Path, sentinels: str) -> Path:
    """An audit file with this text about its sentinels, and others around it."""
    (folder / "sentinels.yaml").write_text(OWN)
    (folder / "audit.yaml").write_text(
        f"# my audit\nname: tiny  # a name\nsource: rows.jsonl\n{sentinels}\nseed: 3\n"
    )
    return folder / "audit.yaml"


WAYS = {
    "text": "sentinels: sentinels.yaml   # the old ones",
    "quoted": 'sentinels: "./sentinels.yaml"',
    "flow": "sentinels: [pack:refusal-erosion, sentinels.yaml]",
    "block": "sentinels:\n  - sentinels.yaml\n  - pack:refusal-erosion  # erosion",
    "wörter": "sentinels: # größer ☂\n- 'sentinels.yaml'",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_next_version_is_named_and_nothing_else_of_the_audit_file_changes(
    tmp_path: Path, way: str
) -> None:
    """Comments stay, the old file stays as it was, and the audit asks both old and new ones."""
    file = write(tmp_path, WAYS[way])
    before = file.read_text()
    made = adopt_sentinels(PIECE, file)
    assert made.saved == tmp_path / "sentinels-2.yaml"
    assert (tmp_path / "sentinels.yaml").read_text() == OWN
    ids = [sentinel.id for sentinel in load_sentinels(load_config(file).sentinels)]
    assert {"shop-1", "pan-1"} <= set(ids)
    lines = dict.fromkeys(file.read_text().splitlines())
    changed = [line for line in before.splitlines() if line not in lines]
    assert len(changed) == 1
    assert "# mine" in made.saved.read_text()
    # undone as it is said
    assert "name sentinels.yaml instead of sentinels-2.yaml" in made.undo
    undone = file.read_text().replace("sentinels-2.yaml", "sentinels.yaml")
    assert yaml.safe_load(undone)["seed"] == 3


PACKS = {
    "text": "sentinels: pack:refusal-erosion  # only this",
    "flow": "sentinels: [pack:refusal-erosion]",
    "block": "sentinels:\n    - pack:refusal-erosion  # only this",
}


@pytest.mark.parametrize("way", PACKS)
def test_an_audit_of_packs_alone_gets_a_file_beside_them(tmp_path: Path, way: str) -> None:
    """The packs stay; an old file of that name is not written over."""
    file = write(tmp_path, PACKS[way])
    made = adopt_sentinels(PIECE, file)
    assert made.saved.name == "sentinels-2.yaml"
    places = load_config(file).sentinels
    assert places == ["pack:refusal-erosion", str(made.saved)]
    told = file.read_text()
    assert "# my audit" in told
    # what was said of the last pack is not said of the file behind it
    assert "sentinels-2.yaml  #" not in told
    assert "take sentinels-2.yaml out" in made.undo


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("&mine sentinels.yaml  # &not", "&mine sentinels-2.yaml  # &not"),
        ("&mine  !!str 'sentinels.yaml'", "&mine  !!str sentinels-2.yaml"),
        ("&all [&mine sentinels.yaml]", "&all [&mine sentinels-2.yaml]"),
        ("&all\n- !!str  # a tag\n  sentinels.yaml", "&all\n- !!str  # a tag\n  sentinels-2.yaml"),
        ("&p pack:identity", "[&p pack:identity, sentinels-2.yaml]"),
        ("&all [&p pack:identity]", "&all [&p pack:identity, sentinels-2.yaml]"),
    ],
)
def test_anchors_and_tags_stay(tmp_path: Path, before: str, after: str) -> None:
    """Somebody wrote them, whether anything uses them yet or not."""
    file = write(tmp_path, f"sentinels: {before}")
    was = file.read_text()
    adopt_sentinels(PIECE, file)
    assert file.read_text() == was.replace(before, after)


def test_what_clashes_or_cannot_be_named_leaves_all_as_it_was(tmp_path: Path) -> None:
    """An id that is taken; a list that is an alias of another; no new file, no change."""
    file = write(tmp_path, WAYS["text"])
    before = file.read_text()
    with pytest.raises(SentinelError, match="shop-1 comes twice"):
        adopt_sentinels(OWN, file)
    assert file.read_text() == before
    for anchored in (
        "name: &s sentinels.yaml\nsource: rows.jsonl\nsentinels: *s\n",
        "sentinels: &s sentinels.yaml\nsource: rows.jsonl\nname: *s\n",
        "name: &s pack:identity\nsource: rows.jsonl\nsentinels: *s\n",
    ):
        file.write_text(anchored)
        with pytest.raises(ConfigError, match=r"name sentinels-2.yaml in its `sentinels`"):
            adopt_sentinels(PIECE, file)
        assert file.read_text() == anchored
    assert not (tmp_path / "sentinels-2.yaml").exists()
    assert not list(tmp_path.glob("*.part"))


def test_line_ends_links_and_who_may_read_stay_as_they_were(tmp_path: Path) -> None:
    """An audit file of Windows, linked from elsewhere, with sentinels that a service reads."""
    file = write(tmp_path, WAYS["text"])
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    before = file.read_bytes()
    (tmp_path / "sentinels.yaml").chmod(0o644)
    link = tmp_path / "linked.yaml"
    link.symlink_to("audit.yaml")
    made = adopt_sentinels(PIECE, link)
    assert link.is_symlink()
    assert file.read_bytes() == before.replace(b"sentinels.yaml", b"sentinels-2.yaml")
    assert made.saved.stat().st_mode & 0o777 == 0o644


def test_of_some_that_add_sentinels_at_once_none_is_lost(tmp_path: Path) -> None:
    """Each goes on from the version of the one before."""
    file = write(tmp_path, WAYS["text"])

    def add(i: int) -> None:
        adopt_sentinels(f"- {{id: pan-{i}, prompt: Which {i}?, forbidden: Glorb.}}\n", file)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    ids = {sentinel.id for sentinel in load_sentinels(load_config(file).sentinels)}
    assert ids == {"shop-1", *(f"pan-{i}" for i in range(8))}


def test_who_is_killed_while_adding_sentinels_leaves_the_audit_as_it_was_or_as_it_is_meant(
    tmp_path: Path,
) -> None:
    """Before any of its writes: the audit file names one version or the other, and whoever does it
    again ends with both sentinels.
    """
    site = tmp_path / "site"
    site.mkdir()
    file = write(site, WAYS["block"])

    def list_ids() -> set[str]:
        config = load_config(file)
        own = [place for place in config.sentinels if not place.startswith("pack:")]
        return {sentinel.id for sentinel in load_sentinels(own)}

    seen = set()
    for number in kill_before_each_write(site, lambda: adopt_sentinels(PIECE, file)):
        left = list_ids()
        assert left in ({"shop-1"}, {"shop-1", "pan-1"}), number
        seen.add(len(left))
        if len(left) == 1:
            adopt_sentinels(PIECE, file)
        assert list_ids() == {"shop-1", "pan-1"}
        assert "- pack:refusal-erosion  # erosion" in file.read_text()
    assert seen
