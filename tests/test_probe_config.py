"""Which checkpoints are probed, as an audit file says it."""

from datetime import timedelta
from pathlib import Path

import pytest
from audits import write_audit

from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError


def test_a_pattern_stands_for_the_section_and_starts_at_the_audit_file(tmp_path: Path) -> None:
    probe = load_config(write_audit(tmp_path, tmp_path, probe="out/checkpoint-*")).probe
    assert probe.checkpoints == str(tmp_path / "out" / "checkpoint-*")
    assert probe.every == timedelta(minutes=30)
    settings = {"checkpoints": "/models/*", "release": "cleared/manifest.json", "every": "2h"}
    probe = load_config(write_audit(tmp_path, tmp_path, probe=settings)).probe
    assert (probe.checkpoints, probe.every) == ("/models/*", timedelta(hours=2))
    assert probe.release == str(tmp_path / "cleared" / "manifest.json")


def test_what_is_no_interval_or_no_key_is_told(tmp_path: Path) -> None:
    for settings, said in (({"every": "1s"}, "30m"), ({"folder": "out"}, "checkpoints")):
        config = write_audit(tmp_path, tmp_path, probe=settings)
        with pytest.raises(ConfigError, match=said):
            load_config(config)
