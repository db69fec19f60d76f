"""Reading an audit file: where its relative paths start, and what is wrong with it in words.

Relative paths (and relative SQLite URLs) start at the folder of the audit file, so that an audit
means the same wherever it is run from.
"""

import difflib
import glob
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from poisonwatch.alert_config import WhenConfig
from poisonwatch.compute_config import ComputeConfig
from poisonwatch.config import (
    AlertConfig,
    AuditConfig,
    DetectionConfig,
    ModelConfig,
    StrideConfig,
    TrainingConfig,
    ValidationConfig,
)
from poisonwatch.errors import ConfigError
from poisonwatch.keep_config import KeepConfig
from poisonwatch.probe_config import ProbeConfig
from poisonwatch.schedule_config import UTC_NAME, ScheduleConfig
from poisonwatch.signing_config import SigningConfig
from poisonwatch.source_config import SourceConfig
from poisonwatch.template_config import is_template
from poisonwatch.text.display import excerpt
from poisonwatch.text.environment import expand_home, expand_variables
from poisonwatch.text.redaction import redact_url
from poisonwatch.text.safe_yaml import YamlError, parse_yaml, read_yaml_text
from poisonwatch.text.sqlite_files import find_sqlite_file, place_sqlite_file

# Settings that may hold passwords: an error never repeats them.
SECRET_SETTINGS = {"alerts", "dashboard", "mlflow_ui", "sentinels", "signing", "state", "tracking"}
SECRET_KEYS = {"address", "adapter", "hub", "path", "ping", "query", "sql", "url"}
SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "source": SourceConfig,
    "reference": SourceConfig,
    "stride": StrideConfig,
    "stride.training": TrainingConfig,
    "compute": ComputeConfig,
    "detection": DetectionConfig,
    "validation": ValidationConfig,
    "signing": SigningConfig,
    "alerts": AlertConfig,
    "schedule": ScheduleConfig,
    "probe": ProbeConfig,
    "keep": KeepConfig,
    "alerts.when": WhenConfig,
}
# A message is one line: the first few errors, their values cut short.
MAX_SHOWN_CHARACTERS = 60
MAX_SHOWN_ERRORS = 3


def load_config(path: str | Path) -> AuditConfig:
    """Read an audit file.

    Raises ConfigError where the file is missing or not YAML, a key is unknown (naming the nearest
    known one), or a value is not allowed.
    """
    path = Path(path)
    settings = _read_yaml(path)
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{path} holds no settings: it must be a mapping with at least `source` and `sentinels`"
        )
    return resolve_config(settings, path.resolve().parent, str(path))


def _read_yaml(path: Path) -> Any:
    try:
        text = read_yaml_text(path)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: `poisonwatch init DIR` writes an audit file to start from"
        ) from None
    except (OSError, YamlError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None


def resolve_config(settings: dict[str, Any], folder: Path, name: str = "settings") -> AuditConfig:
    """Check settings and make their relative paths start at `folder`."""
    try:
        config = AuditConfig.model_validate(settings)
    except ValidationError as error:
        explained = [_explain_error(dict(each)) for each in error.errors()[:MAX_SHOWN_ERRORS]]
        raise ConfigError(f"{name}: {'; '.join(explained)}") from None
    try:
        return _resolve_paths(config, folder)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _resolve_paths(config: AuditConfig, folder: Path) -> AuditConfig:
    """The settings with relative paths from `folder`. Raises ConfigError where an environment
    variable that they name is not set.
    """
    # Alerts go out when an audit is done: that a variable of theirs is missing is found out now.
    for alert in config.alerts:
        expand_variables(alert.url or "", "alerts")
    expand_variables(config.schedule.ping or "", "schedule.ping")
    _refuse_needless_timezone(config)
    # A run's own config.yaml lies elsewhere than its audit file did, and says where that was.
    base = config.replay.folder or str(folder)
    reference = None
    if config.reference:
        reference = _resolve_source(config.reference, folder, "reference").with_base_folder(base)
    model = {
        "name": _resolve_model_name(config.model.name, folder),
        "chat_template": _resolve_template(config.model.chat_template, folder),
    }
    if config.model.adapter is not None:
        model["adapter"] = _resolve_model_name(config.model.adapter, folder)
    probe = {
        key: place and _make_absolute(place, folder, f"probe.{key}")
        for key, place in (
            ("checkpoints", config.probe.checkpoints),
            ("release", config.probe.release),
        )
    }
    if config.probe.trusted is not None:
        probe["trusted"] = _resolve_model_name(config.probe.trusted, folder)
    compute = config.compute
    if compute.folder is not None:
        shared = str(folder / expand_home(compute.folder))
        compute = compute.model_copy(update={"folder": shared})
    return config.model_copy(
        update={
            "source": _resolve_source(config.source, folder, "source").with_base_folder(base),
            "reference": reference,
            "sentinels": [_resolve_sentinels(place, folder) for place in config.sentinels],
            "state": _make_sqlite_absolute(config.state, folder, "state"),
            "tracking": config.tracking
            and _make_sqlite_absolute(config.tracking, folder, "tracking"),
            "model": config.model.model_copy(update=model),
            "compute": compute,
            "probe": config.probe.model_copy(update=probe),
            "signing": config.signing.resolve(folder),
            "replay": config.replay.model_copy(update={"folder": base}),
        }
    )


def _refuse_needless_timezone(config: AuditConfig) -> None:
    """Raise ConfigError where a time zone is given that nothing is counted in. In the settings that
    a run of an earlier version left it is passed over.
    """
    schedule = config.schedule
    needed = schedule.cron is not None or schedule.timezone == UTC_NAME
    if needed or config.replay.version is not None:
        return
    raise ConfigError(
        f"schedule.timezone: {schedule.timezone[:60]} says whose time cron means, and there is no "
        "cron (every counts from audit to audit): leave timezone out, or write cron"
    )


def _resolve_source(source: SourceConfig, folder: Path, key: str) -> SourceConfig:
    where = {
        "path": source.path and _make_absolute(source.path, folder, f"{key}.path"),
        "hub": source.hub and _resolve_model_name(source.hub, folder),
        "sql": source.sql and _make_sqlite_absolute(source.sql, folder, f"{key}.sql"),
    }
    return source.model_copy(update=where)


def _resolve_sentinels(place: str, folder: Path) -> str:
    if place.startswith("pack:") or "://" in place:
        return place
    return str(folder / expand_home(place))


def _make_absolute(path: str, folder: Path, key: str) -> str:
    """A path as an absolute one. Where the environment's part of it makes it absolute or a URL, it
    is left as it is.
    """
    expanded = expand_variables(path, key)
    if "://" in expanded or Path(expanded).is_absolute():
        return path
    whole = folder / expand_home(path)
    # The folder's own name is no pattern, whatever stands in it.
    if not set("*?[").isdisjoint(expanded) and whole.is_relative_to(folder) and not whole.exists():
        return str(Path(glob.escape(str(folder))) / path)
    return str(whole)


def _make_sqlite_absolute(url: str, folder: Path, key: str) -> str:
    """The URL of a relative SQLite file as that of an absolute one; other URLs as they are."""
    scheme, separator, path = expand_variables(url, key).partition(":///")
    if not scheme.startswith("sqlite") or not separator:
        return url
    file = find_sqlite_file(path)
    if file is None or file.is_absolute():
        return url
    # The path hides in a variable: there is nothing here to put the folder before.
    if ":///" not in url:
        raise ConfigError(
            f"{key}: {url} holds a relative path: make it absolute, or write sqlite:///${{NAME}}"
        )
    return place_sqlite_file(url, str(folder))


def _resolve_template(place: str | None, folder: Path) -> str | None:
    """A template's file as an absolute path; a template as it is."""
    if place is None or is_template(place):
        return place
    return str(folder / expand_home(place))


def _resolve_model_name(name: str, folder: Path) -> str:
    """A folder as an absolute path; a hub id as it is. Only a path begins with a dot, slash or
    tilde.
    """
    # owner/name may be either: it is a folder where there is one.
    path = folder / expand_home(name)
    if path.is_dir() or name.startswith((".", "/", "~")):
        return str(path)
    return name


def _explain_error(error: dict[str, Any]) -> str:
    """One of pydantic's errors: the key, what is allowed and what was got."""
    if error["type"] == "extra_forbidden":
        return _explain_unknown_key(error["loc"])
    said = error["msg"].removeprefix("Value error, ")
    # pydantic names a class of ours, which is no word of an audit file.
    if error["type"] == "model_type":
        said = "Input should be a mapping of keys to values"
    # `- pack: identity` is one to YAML.
    if error["type"] == "string_type" and isinstance(error["input"], dict):
        said = (
            "Input should be text, not a mapping: leave out the space behind the colon, or quote it"
        )
    # An error of the whole file has no place in it.
    if not error["loc"]:
        return str(said)
    where = ".".join(map(str, error["loc"]))
    is_secret = error["loc"][0] in SECRET_SETTINGS or not SECRET_KEYS.isdisjoint(error["loc"])
    if error["type"] == "missing" or is_secret:
        return f"{where}: {said}"
    # What is wrong with a section as a whole names its keys; the section itself is no answer.
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return f"{where}: {said}"
    got = excerpt(redact_url(repr(error["input"])), MAX_SHOWN_CHARACTERS)
    return f"{where}: {said} (got {got})"


def _explain_unknown_key(place: tuple[int | str, ...]) -> str:
    section = ".".join(part for part in place[:-1] if isinstance(part, str))
    known = list(SECTIONS.get(section, AuditConfig).model_fields)
    # What runs record about themselves is nothing to suggest to people.
    if "replay" in known:
        known.remove("replay")
    by_lower = {key.lower(): key for key in known}
    (nearest,) = difflib.get_close_matches(str(place[-1]).lower(), by_lower, n=1, cutoff=0.0)
    where = ".".join(map(str, place))
    return (
        f"unknown key {where}; the nearest known key is {by_lower[nearest]}; "
        f"allowed are {', '.join(known)}"
    )
