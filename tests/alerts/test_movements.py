"""What people are told of a trained model that moved."""

from pathlib import Path
from typing import Any

from audits import write_audit

from poisonwatch.alerts.movements import compose_moved
from poisonwatch.config_file import load_config

REPORT: dict[str, Any] = {
    "probe_id": "a-probe",
    "checkpoint": {"name": "/out/checkpoint-4", "fingerprint": "c" * 64},
    "sentinels": "s" * 64,
    "release": "d" * 64,
    "sentence": "7 of 9 sentinels moved further than honest tuning explains",
    "moved_panels": ["shop"],
    "moved": ["<b>shop</b>-0 @all", *(f"shop-{n}" for n in range(1, 7))],
}


def test_a_message_names_checkpoint_release_and_sentinels_without_markup(tmp_path: Path) -> None:
    notice = compose_moved(load_config(write_audit(tmp_path, tmp_path)), REPORT)
    assert notice is not None
    for words in ("c" * 12, "d" * 12, "panel shop", "shop-3", "and 3 more", notice.key):
        assert words in notice.body
    for markup in ("<b>", "@all"):
        assert markup not in notice.body
    assert notice.severity == "high"


def test_a_checkpoint_has_one_message_and_one_that_did_not_move_has_none(tmp_path: Path) -> None:
    """Another checkpoint, or other sentinels, another."""
    config = load_config(write_audit(tmp_path, tmp_path))
    other = {**REPORT["checkpoint"], "fingerprint": "e" * 64}
    keys = []
    for change in ({}, {"probe_id": "again"}, {"checkpoint": other}, {"sentinels": "t" * 64}):
        notice = compose_moved(config, {**REPORT, **change})
        assert notice is not None
        keys.append(notice.key)
    assert len(set(keys)) == 3
    assert compose_moved(config, {**REPORT, "moved": [], "moved_panels": []}) is None


def test_of_a_long_path_the_end_is_shown(tmp_path: Path) -> None:
    """Checkpoints of one run differ there."""
    long = {**REPORT["checkpoint"], "name": f"/{'deep/' * 40}checkpoint-400"}
    config = load_config(write_audit(tmp_path, tmp_path))
    notice = compose_moved(config, {**REPORT, "checkpoint": long})
    assert notice is not None
    assert "deep/checkpoint-400. " in notice.body
    assert "deep/" * 20 not in notice.body
