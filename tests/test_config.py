"""The settings of an audit: their defaults, their former names, and what they never give away."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from poisonwatch.config import DEFAULT_MODEL, AuditConfig, Replay, StrideConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ConfigError

LEAST: dict[str, Any] = {"source": "rows.jsonl", "sentinels": ["sentinels.yaml"]}


def test_source_and_sentinels_are_enough(tmp_path: Path) -> None:
    """Everything else has a default."""
    config = resolve_config(LEAST, tmp_path)
    assert config.model.name == DEFAULT_MODEL
    assert config.reference is None
    assert config.detection.false_discovery_rate == 0.1
    assert config.stride == StrideConfig()
    assert config.alerts == []


def test_short_forms_mean_the_long_ones(tmp_path: Path) -> None:
    """model: x = {name: x}; source: x = {path: x}; sentinels: x = [x]."""
    short = resolve_config(
        {"model": "org/name", "source": "a.jsonl", "reference": "b.jsonl", "sentinels": "s.yaml"},
        tmp_path,
    )
    long = resolve_config(
        {
            "model": {"name": "org/name"},
            "source": {"path": "a.jsonl"},
            "reference": {"path": "b.jsonl"},
            "sentinels": ["s.yaml"],
        },
        tmp_path,
    )
    assert short == long


SECRETS = {
    "source": "https://ann:hunter2@host/rows.jsonl?token=hunter2",
    "reference": "https://ann:hunter2@host/trusted.jsonl?sig=hunter2",
    "sentinels": ["s.yaml"],
    "state": "postgresql://ann:hunter2@db/x",
    "tracking": "https://ann:hunter2@mlflow",
    "alerts": ["slack://hunter2/hunter2/hunter2", "mailto://ann:hunter2@host", "hunter2"],
}


def test_public_settings_hold_no_secret(tmp_path: Path) -> None:
    """Logins and queries of every setting are ***; an alert shows its kind alone."""
    public = resolve_config(SECRETS, tmp_path).to_public_dict()
    assert "hunter2" not in yaml.safe_dump(public)
    assert public["source"]["path"] == "https://***@host/rows.jsonl?token=***"
    assert public["alerts"][0]["url"] == "slack://***"
    assert public["state"] == "postgresql://***@db/x"


def test_public_settings_replay(tmp_path: Path) -> None:
    """resolve(public(config)) = config where nothing is secret, from any folder."""
    config = resolve_config(
        {**LEAST, "reference": "trusted.jsonl", "stride": {"K": 12, "lasso": 0.01}, "seed": 3},
        tmp_path,
    )
    assert (
        resolve_config(
            yaml.safe_load(yaml.safe_dump(config.to_public_dict())), tmp_path / "elsewhere"
        )
        == config
    )


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """A resolved configuration is what ran."""
    config = resolve_config(LEAST, tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 5


def test_every_setting_explains_itself() -> None:
    """A sentence under each field."""
    sections = [
        AuditConfig,
        *{
            type(v)
            for v in vars(resolve_config(LEAST, Path("/"))).values()
            if isinstance(v, BaseModel)
        },
    ]
    assert len(sections) == 14
    assert not [
        f"{s.__name__}.{key}"
        for s in sections
        for key, field in s.model_fields.items()
        if not field.description
    ]


def test_trainings_have_one_set_of_defaults() -> None:
    """What an audit file leaves out is what the library does by itself."""
    from poisonwatch.stride.settings import TrainingSettings, build_training_settings

    assert build_training_settings(StrideConfig()) == TrainingSettings()


def test_the_former_name_of_detection_still_counts(tmp_path: Path) -> None:
    """Files written before the section was renamed mean what they meant."""
    old = resolve_config({**LEAST, "decision": {"false_discovery_rate": 0.2}}, tmp_path)
    new = resolve_config({**LEAST, "detection": {"false_discovery_rate": 0.2}}, tmp_path)
    assert old == new
    assert old.detection.false_discovery_rate == 0.2
    assert "decision" not in old.to_public_dict()


def test_both_names_of_detection_are_refused(tmp_path: Path) -> None:
    """Neither can be told to be the one that was meant."""
    both = {"decision": {"false_discovery_rate": 0.2}, "detection": {"false_discovery_rate": 0.1}}
    with pytest.raises(ConfigError, match=r"detection and decision .* leave decision out"):
        resolve_config({**LEAST, **both}, tmp_path)


def test_recovery_by_a_gaussian_process_has_two_names(tmp_path: Path) -> None:
    """gp is kriging, and is written as such."""
    config = resolve_config({**LEAST, "stride": {"recovery": "gp"}}, tmp_path)
    assert config.stride.recovery == "kriging"
    assert config.to_public_dict()["stride"]["recovery"] == "kriging"
    with pytest.raises(ConfigError, match="Input should be 'kriging' or 'lasso'"):
        resolve_config({**LEAST, "stride": {"recovery": "GP"}}, tmp_path)


def test_what_earlier_runs_wrote_among_the_settings_is_their_record(tmp_path: Path) -> None:
    """Version, commit, audit and folder of a config.yaml from before runs had a section of their
    own.
    """
    flat = {
        "version": "0.1.0",
        "git_commit": "abc",
        "replays": "20261128-133148-9d8882",
        "source": {"path": "/audits/rows.jsonl", "relative_to": "/audits"},
        "reference": {"path": "/audits/trusted.jsonl", "relative_to": "/audits"},
        "sentinels": ["/audits/sentinels.yaml"],
    }
    config = resolve_config(flat, tmp_path)
    assert config.replay == Replay(
        audit_id="20261128-133148-9d8882", folder="/audits", version="0.1.0", git_commit="abc"
    )
    for source in (config.source, config.reference):
        assert source is not None
        assert source.get_display_name("/audits/data/a.jsonl") == "data/a.jsonl"
    assert resolve_config(config.to_public_dict(), tmp_path / "elsewhere") == config
    # One that never was relative to anything, as drills wrote it.
    bare = {**LEAST, "replays": None, "git_commit": None}
    assert resolve_config(bare, tmp_path) == resolve_config(LEAST, tmp_path)


def test_names_in_results_start_at_the_audit_file(tmp_path: Path) -> None:
    """Also in an audit of a run's own config.yaml, which lies in another folder."""
    config = resolve_config(LEAST, tmp_path)
    replayed = resolve_config(config.to_public_dict(), tmp_path / "runs" / "one")
    for each in (config, replayed):
        assert each.source.get_display_name(str(tmp_path / "data" / "a.jsonl")) == "data/a.jsonl"


def test_the_window_is_a_number_of_rows_or_all(tmp_path: Path) -> None:
    """One error says what is allowed, whichever of the two was meant."""
    for window in (0, 7, "all"):
        config = resolve_config({**LEAST, "window": window}, tmp_path)
        assert config.window == window
        assert resolve_config(config.to_public_dict(), tmp_path) == config
    for window in (-1, "ALL", 2.5, True, None):
        with pytest.raises(
            ConfigError, match=r"window: give a number of rows from 0, or all \(got"
        ):
            resolve_config({**LEAST, "window": window}, tmp_path)
