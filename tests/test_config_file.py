"""Reading an audit file: where its paths start, and what is said of one that cannot be read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from poisonwatch.config_file import load_config, resolve_config
from poisonwatch.errors import ConfigError

LEAST: dict[str, Any] = {"source": "rows.jsonl", "sentinels": ["sentinels.yaml"]}


def write(folder: Path, settings: object) -> Path:
    path = folder / "audit.yaml"
    path.write_text(
        settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8"
    )
    return path


def refusal(settings: object, folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, settings))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_relative_paths_start_at_the_folder_of_the_audit_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """source, reference, sentinels, SQLite files and model folders; from wherever the audit is run."""
    (tmp_path / "audits" / "my-model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = write(
        tmp_path / "audits",
        {
            "source": "data/*.jsonl",
            "reference": {"path": "../trusted.jsonl"},
            "sentinels": ["s.yaml", "pack:refusal-erosion", str(tmp_path / "abs.yaml")],
            "model": "my-model",
            "state": "sqlite:///ledger.db",
        },
    )
    config = load_config(path.relative_to(tmp_path))
    folder = tmp_path / "audits"
    assert config.source.path == str(folder / "data/*.jsonl")
    assert config.reference is not None
    assert Path(config.reference.path).resolve() == tmp_path / "trusted.jsonl"
    assert config.sentinels == [
        str(folder / "s.yaml"),
        "pack:refusal-erosion",
        str(tmp_path / "abs.yaml"),
    ]
    assert config.model.name == str(folder / "my-model")
    assert config.state == f"sqlite:///{folder / 'ledger.db'}"
    assert config.tracking == f"sqlite:///{folder / 'mlflow.db'}"
    assert config.source.get_display_name(str(folder / "data/a.jsonl")) == "data/a.jsonl"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://///var/x.db",
        "sqlite:///file:/var/x.db?mode=ro&uri=true",
        "sqlite:///file::memory:?uri=true",
        "postgresql://u:p@db/x",
        "https://mlflow.example",
    ],
)
def test_urls_that_are_no_relative_files_stay_as_they_are(tmp_path: Path, url: str) -> None:
    """Servers and memory have no folder."""
    config = resolve_config(
        {**LEAST, "state": url, "tracking": url, "source": "https://host/rows.jsonl"}, tmp_path
    )
    assert (config.state, config.tracking, config.source.path) == (
        url,
        url,
        "https://host/rows.jsonl",
    )


def test_absolute_paths_and_hub_ids_stay_as_they_are(tmp_path: Path) -> None:
    """Only what is relative is placed."""
    config = resolve_config(
        {**LEAST, "source": "/data/a.jsonl", "model": "org/name", "state": "sqlite:////var/x.db"},
        tmp_path,
    )
    assert (config.source.path, config.model.name, config.state) == (
        "/data/a.jsonl",
        "org/name",
        "sqlite:////var/x.db",
    )


@pytest.mark.parametrize(
    ("settings", "unknown", "nearest"),
    [
        ({"sentinel": []}, "sentinel", "sentinels"),
        ({"sorce": "x"}, "sorce", "source"),
        (
            {"detection": {"false_discovery": 0.1}},
            "detection.false_discovery",
            "false_discovery_rate",
        ),
        ({"stride": {"dampening": 1}}, "stride.dampening", "damping"),
        ({"stride": {"k": 1}}, "stride.k", "K"),
        ({"stride": {"training": {"epoch": 1}}}, "stride.training.epoch", "epochs"),
        ({"model": {"nam": "x"}}, "model.nam", "name"),
        ({"reference": {"path": "x", "fromat": "alpaca"}}, "reference.fromat", "format"),
        ({"validation": {"max_character": 1}}, "validation.max_character", "max_characters"),
        ({"keep": {"dayz": 1}}, "keep.dayz", "days"),
        ({"xyzzy": 1}, "xyzzy", ""),
    ],
)
def test_unknown_key_is_named_with_the_nearest_known_one(
    tmp_path: Path, settings: dict[str, Any], unknown: str, nearest: str
) -> None:
    """What was got, what is nearest, what is allowed."""
    message = refusal({**LEAST, **settings}, tmp_path)
    assert f"unknown key {unknown}; the nearest known key is {nearest}" in message
    assert "; allowed are " in message
    assert message.startswith(str(tmp_path / "audit.yaml"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": None}, "source: "),
        ({"sentinels": []}, "sentinels: List should have at least 1 item"),
        ({"stride": {"shift": 2}}, "stride.shift: Input should be less than 1 (got 2)"),
        (
            {"stride": {"layer": -1}},
            "stride.layer: Input should be greater than or equal to 0 (got -1)",
        ),
        (
            {"detection": {"false_discovery_rate": 0}},
            "detection.false_discovery_rate: Input should be greater than 0 (got 0)",
        ),
        (
            {"source": {"path": "x", "format": "xml"}},
            "source.format: Input should be 'auto', 'alpaca', 'prompt', 'messages', 'sharegpt', ",
        ),
        (
            {"model": {"dtype": "int8"}},
            "model.dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16' (got 'int8')",
        ),
        ({"stride": 5}, "stride: Input should be a mapping of keys to values (got 5)"),
        ({"schedule": 60}, "schedule: Input should be a mapping of keys to values (got 60)"),
        ({"keep": {"days": 99_999_999}}, "keep.days: Input should be less than or equal to"),
        ({"remind": "99999999d"}, "remind: is too long: give ten years at most"),
        ({1: 2}, "1"),
    ],
)
def test_value_that_is_not_allowed_is_named_with_what_is(
    tmp_path: Path, settings: dict[Any, Any], said: str
) -> None:
    """The key's path, what is allowed, what was got."""
    assert said in refusal({**LEAST, **settings}, tmp_path)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    """source and sentinels are all that must be said."""
    message = refusal({"name": "x"}, tmp_path)
    assert "source: Field required" in message
    assert "sentinels: Field required" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no settings: it must be a mapping with at least `source` and `sentinels`"),
        ("- a\n- b\n", "holds no settings"),
        ("source: [a\n", "is not YAML: "),
        ("source: \t- a: b: c", "is not YAML: "),
        ("source: \x00", "is not YAML: it holds control characters"),
        (
            "name: a\nsource: b\nname: c",
            "the key name comes twice, the first time in line 1 (line 3",
        ),
        ("- &a [x, x]\n- &b [*a, *a]\n" * 2, "is not YAML: "),
        ("[" * 100_000, "is not YAML: it is nested more than 50 deep (line 1"),
        ("seed: " + "1" * 5000, "is not YAML: a number has more than 100 characters"),
        ("name: &a [*a]", "is not YAML: an alias (*) stands for itself"),
        ("x: !!python/object/apply:os.system ['true']", "is not YAML: "),
    ],
)
def test_file_that_holds_no_settings_says_so(tmp_path: Path, text: str, said: str) -> None:
    """One line; nothing in the file is run."""
    assert said in refusal(text, tmp_path)


def test_missing_and_undecodable_files_say_what_to_do(tmp_path: Path) -> None:
    """`poisonwatch init` writes one to start from."""
    with pytest.raises(
        ConfigError,
        match=r"none\.yaml does not exist: `poisonwatch init DIR` writes an audit file to start from",
    ):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml cannot be read: "):
        load_config(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: "):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"alerts": [{"url": ["hunter2"]}]},
        {"alerts": {"slack": "hunter2"}},
        {"alerts": 5, "state": ["hunter2"], "tracking": {"hunter2": 1}},
        {"state": {"url": "postgresql://ann:hunter2@db/x"}},
        {"source": {"path": ["https://ann:hunter2@host/x"]}},
        {"source": {"path": "x", "format": "https://host/?token=hunter2"}},
    ],
)
def test_errors_repeat_no_secret(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A value that is not allowed is not shown where it may be a password."""
    message = refusal({**LEAST, **settings}, tmp_path)
    assert "hunter2" not in message
    assert "Input should be" in message


@pytest.mark.parametrize(
    "line",
    [
        "alerts: [slack://hunter2/x",
        "state: postgresql://ann:hunter2@db: x",
        "alerts: @hunter2",
        "alerts: *hunter2",
    ],
)
def test_yaml_errors_repeat_no_line_of_the_file(tmp_path: Path, line: str) -> None:
    """A syntax error names its line and column; the line itself may hold a password."""
    message = refusal(f"source: rows.jsonl\n{line}\n", tmp_path)
    assert "hunter2" not in message
    assert "line " in message


def test_variables_of_the_environment_stay_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting holds their values, so none is written or logged; what is written replays."""
    for name, value in {
        "PW": "hunter2",
        "FOLDER": "/hunter2",
        "PART": "hunter2",
        "URL": "sqlite:////hunter2/x.db",
    }.items():
        monkeypatch.setenv(name, value)
    settings = {
        "source": {"sql": "postgresql://ann:${PW}@db/x?sslpassword=${PW}", "query": "SELECT 1"},
        "reference": "${FOLDER}/trusted.jsonl",
        "sentinels": ["s.yaml"],
        "state": "sqlite:///${PART}/ledger.db",
        "tracking": "${URL}",
        "alerts": ["slack://${PW}/x/y"],
    }
    config = resolve_config(settings, tmp_path)
    assert "hunter2" not in repr(config) + yaml.safe_dump(config.to_public_dict())
    assert config.reference is not None
    assert config.reference.path == "${FOLDER}/trusted.jsonl"
    assert config.state == f"sqlite:///{tmp_path}/${{PART}}/ledger.db"
    assert (config.tracking, config.source.sql) == ("${URL}", settings["source"]["sql"])
    replayed = resolve_config(config.to_public_dict(), tmp_path / "elsewhere")
    assert (replayed.source, replayed.reference, replayed.state, replayed.tracking) == (
        config.source,
        config.reference,
        config.state,
        config.tracking,
    )


def test_relative_part_of_the_environment_starts_at_the_audit_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it stood there; a whole URL of a relative file could start anywhere, and is refused."""
    monkeypatch.setenv("PART", "data")
    assert (
        resolve_config({**LEAST, "source": "${PART}/a.jsonl"}, tmp_path).source.path
        == f"{tmp_path}/${{PART}}/a.jsonl"
    )
    monkeypatch.setenv("PART", "s3://bucket")
    assert (
        resolve_config({**LEAST, "source": "${PART}/a.jsonl"}, tmp_path).source.path
        == "${PART}/a.jsonl"
    )
    monkeypatch.setenv("PART", "sqlite:///hunter2.db")
    with pytest.raises(
        ConfigError, match=r"^settings: state: \$\{PART\} holds a relative path: make it absolute"
    ):
        resolve_config({**LEAST, "state": "${PART}"}, tmp_path)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"source": "${NOT_SET}/a.jsonl"}, "source.path"),
        (
            {"source": {"sql": "postgresql://ann:${NOT_SET}@db/x", "query": "SELECT 1"}},
            "source.sql",
        ),
        ({"reference": {"path": "${NOT_SET}"}}, "reference.path"),
        ({"state": "postgresql://ann:${NOT_SET}@db/x"}, "state"),
        ({"tracking": "https://${NOT_SET}"}, "tracking"),
        ({"alerts": ["json://host", "slack://${NOT_SET}"]}, "alerts"),
    ],
)
def test_variable_that_is_not_set_is_named_when_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], key: str
) -> None:
    """With the setting that asks for it."""
    monkeypatch.delenv("NOT_SET", raising=False)
    assert f"audit.yaml: {key}: the environment variable NOT_SET is not set: set it" in refusal(
        {**LEAST, **settings}, tmp_path
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "~no-such-user/rows.jsonl"},
        {"sentinels": ["~no-such-user/rows.jsonl"]},
        {"model": "~no-such-user/rows.jsonl"},
        {"compute": {"engine": "ray", "folder": "~no-such-user/rows.jsonl"}},
        {"signing": {"key": "~no-such-user/rows.jsonl"}},
    ],
)
def test_a_home_folder_that_nobody_has_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert "audit.yaml: ~no-such-user/rows.jsonl: there is no home folder of that user here" in (
        refusal(LEAST | settings, tmp_path)
    )


def test_a_space_behind_the_colon_of_a_pack_is_named(tmp_path: Path) -> None:
    """`- pack: identity` is a mapping to YAML."""
    said = refusal(LEAST | {"sentinels": [{"pack": "identity"}]}, tmp_path)
    assert "sentinels.0: Input should be text, not a mapping" in said
    assert "leave out the space behind the colon, or quote it" in said
