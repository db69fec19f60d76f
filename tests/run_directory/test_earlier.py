"""Audits of before are found by what they left."""

from pathlib import Path

from poisonwatch.run_directory.earlier import list_earlier_runs


def test_runs_of_a_name_are_listed_oldest_first(tmp_path: Path) -> None:
    """Whoever's run directory another is, and whatever else lies there."""
    for day, name in (("20260102-b", "shop"), ("20260101-a", "shop"), ("20260103-c", "other")):
        folder = tmp_path / day
        folder.mkdir()
        settings = f"name: {name}\nsource: rows.jsonl\nsentinels: pack:insult\n"
        (folder / "config.yaml").write_text(settings)
        (folder / "summary.json").write_text("{}")
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "20260104-d").mkdir()
    found = list_earlier_runs(tmp_path, "shop")
    assert [folder.name for folder in found] == ["20260101-a", "20260102-b"]
    assert list_earlier_runs(tmp_path / "nothing", "shop") == []
