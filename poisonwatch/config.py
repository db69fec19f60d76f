"""The audit file: what the user says, and the defaults for what they do not.

Relative paths (and relative SQLite URLs) start at the folder of the audit file, so that an audit
means the same wherever it is run from. ${NAME} stays as it is written until a place is opened
(poisonwatch/environment.py): no setting ever holds what the environment holds.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from poisonwatch.errors import ConfigError
from poisonwatch.text.environment import conceal, expand_variables
from poisonwatch.text.redaction import redact_url

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SECRET_SETTINGS = {
    "alerts",
    "state",
    "tracking",
}  # settings that may hold passwords: never repeated in an error


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Section):
    """The model whose behaviour is guarded."""

    name: str = Field(DEFAULT_MODEL, description="Hub id, or a folder with safetensors weights.")
    revision: str | None = Field(
        None, description="Hub commit, branch or tag; pin a commit to make audits repeatable."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on CUDA, float32 elsewhere."
    )
    device: str = Field("auto", description="auto: CUDA where there is a GPU, else the CPU.")
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that comes with the model. Off unless you trust its author.",
    )


FormatName = Literal["auto", "alpaca", "prompt", "messages", "sharegpt", "preference", "text"]


class SourceConfig(_Section):
    """Where rows are pulled from: exactly one of `path`, `hub` and `sql`, and how their fields are
    read.
    """

    path: str | None = Field(
        None,
        description="A file, folder, glob or URL (s3://, gs://, https://, hf://, ...) of rows.",
    )
    hub: str | None = Field(
        None, description="A data set on the Hugging Face hub, such as tatsu-lab/alpaca."
    )
    subset: str | None = Field(None, description="hub: the data set's configuration.")
    split: str = Field("train", description="hub: the split.")
    revision: str | None = Field(None, description="hub: commit, branch or tag.")
    sql: str | None = Field(
        None, description="A SQLAlchemy URL; write ${NAME} for what the environment holds."
    )
    query: str | None = Field(
        None, description="sql: the SELECT that gives the rows, each column a field."
    )
    watermark: str | None = Field(
        None,
        description="sql: a column that only grows; a later pull takes what lies beyond its last value.",
    )
    format: FormatName = Field("auto", description="Row format; auto reads it off the field names.")
    fields: dict[str, str] = Field(
        {},
        description="What the format's fields are called here, as in {prompt: question, response: answer}.",
    )
    template: str | None = Field(
        None,
        description="text: how prompt and response stand in it, as in 'Q: {prompt}\\nA: {response}'.",
    )
    relative_to: str | None = Field(
        None,
        description="Folder that file names in results are relative to; default the audit file's.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> "SourceConfig":
        given = [name for name in ("path", "hub", "sql") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a source is one of path, hub and sql; given are {', '.join(given) or 'none'}"
            )
        for key, needs in (
            ("query", "sql"),
            ("watermark", "sql"),
            ("subset", "hub"),
            ("revision", "hub"),
        ):
            if getattr(self, key) is not None and getattr(self, needs) is None:
                raise ValueError(f"{key} goes with {needs}, and there is none")
        if self.sql is not None and self.query is None:
            raise ValueError("sql needs a query: the SELECT that gives the rows")
        return self

    @property
    def address(self) -> str:
        """Where the rows are, for people: without passwords."""
        return redact_url(self.path or self.sql or f"hf://datasets/{self.hub}")

    def get_display_name(self, path: str) -> str:
        """A file's name in results: relative to `relative_to` where it lies below it."""
        if self.relative_to and Path(path).is_relative_to(self.relative_to):
            return conceal(str(Path(path).relative_to(self.relative_to)), self.path)
        return conceal(path, self.path)


ScreenName = Literal["duplicate-answers", "trigger-ngram", "invisible-characters", "control-tokens"]


class TrainingConfig(_Section):
    """`fit: sgd`: the operators are trained."""

    epochs: int = Field(4, ge=1, description="How often every row is met.")
    lr: float = Field(
        1e-3, gt=0, description="Typical relative shift of a state that one step makes."
    )
    operators_per_row: int = Field(
        8, ge=1, description="Operators a row is run under at a time: its own d and others."
    )
    stability: float = Field(1.0, ge=0, description="Weight of: rows outside a subset stay put.")
    linearity: float = Field(1.0, ge=0, description="Weight of: effects of subsets add up.")
    checkpoint_every: int = Field(
        100, ge=1, description="Steps between checkpoints; a killed training goes on from the last."
    )


class StrideConfig(_Section):
    """The attribution. Everything has a default; what is None is derived from the model and the
    rows, and printed.
    """

    fit: Literal["natural-gradient", "sgd"] = Field(
        "natural-gradient",
        description="natural-gradient: closed form, one pass. sgd: the paper's training, 15 times slower or more.",
    )
    measurement: Literal["first-order", "forward"] = Field(
        "first-order",
        description="first-order: one backward pass a sentinel. forward: every operator applied to every sentinel.",
    )
    design: Literal["alike", "random"] = Field(
        "alike", description="alike: like rows share subsets. random: the paper's expander."
    )
    recovery: Literal["kriging", "lasso"] = Field(
        "kriging",
        description="kriging: like rows act alike (dense). lasso: few rows act (sparse, the paper's).",
    )
    layer: int | None = Field(
        None,
        ge=0,
        description="Block below which states are steered; default two fifths of the depth.",
    )
    r: int = Field(
        64, ge=1, description="Dimension of the shared basis B(z), the constant included."
    )
    K: int | None = Field(
        None, ge=1, description="Subsets; default one a row, or as many as the memory budget holds."
    )
    d: int | None = Field(
        None,
        ge=1,
        description="Subsets a row is a member of; default 1 where K = n (recovery is then exact), else 3.",
    )
    rounds: int = Field(
        3,
        ge=0,
        description="Adaptive rounds: suspects are measured alone until no new ones turn up, or so often.",
    )
    shortlist: int | None = Field(
        None, ge=1, description="Suspects a round; default a tenth of the rows, between 32 and 512."
    )
    damping: float = Field(
        0.1, gt=0, description="Added to both Fisher factors, relative to their mean diagonal."
    )
    shift: float = Field(
        0.005,
        gt=0,
        lt=1,
        description="Typical relative shift ||z~ - z|| / ||z|| that the operators are scaled to.",
    )
    lasso: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Lasso penalty as a fraction of the smallest one that silences every row; default: universal threshold.",
    )
    background: int = Field(
        512,
        ge=8,
        description="Rows that serve as ordinary queries: how far a row moves these is its yardstick.",
    )
    max_tokens: int = Field(
        512,
        ge=16,
        description="Longer conversations lose the middle of their prompt, then the end of their answer.",
    )
    token_budget: int = Field(2048, ge=16, description="Padded tokens in a batch.")
    memory_gb: float = Field(
        2.0, gt=0, description="Memory that the operators may take: K x r x D x 4 bytes."
    )
    training: TrainingConfig = Field(TrainingConfig(), description="Dials of `fit: sgd`.")


class DetectionConfig(_Section):
    """From scores to flags."""

    false_discovery_rate: float = Field(
        0.1, gt=0, lt=1, description="Expected share of wrong flags among all flags."
    )


class ExpectationConfig(BaseModel):
    """An expectation of the user's: a Great Expectations type by name, and beside these settings
    the type's own, as column and regex.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(description="A standard type, such as ExpectColumnValuesToNotMatchRegex.")
    reason: str | None = Field(None, min_length=1, description="What it means to fail, in words.")
    severity: Literal["reject", "warn", "stop"] | None = Field(
        None,
        description="reject: rows that fail are kept out (default where single rows are asked); warn (default of all others); stop.",
    )


Share = Annotated[float, Field(gt=0, le=1)]


class ValidationConfig(_Section):
    """What a row, and the rows together, must be to be audited."""

    max_characters: int = Field(50_000, ge=1, description="Longest prompt, and longest response.")
    max_rejected_share: float = Field(
        0.2, ge=0, le=1, description="The audit stops when more rows than this share fail."
    )
    role_order: Literal["reject", "warn"] = Field(
        "reject",
        description="Conversations whose turns are out of order: system first, user and assistant in turn, the assistant last.",
    )
    languages: dict[str, Share] = Field(
        {},
        description="Least share of rows by language, as in {en: 0.9}; needs the extra `languages`.",
    )
    max_source_drift: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Warns when more than this share of rows comes from elsewhere than in the last audits; 1: never.",
    )
    expectations: list[ExpectationConfig] = Field(
        [], description="Your own: Great Expectations types by name, with their settings."
    )


class AlertConfig(_Section):
    """Somebody to be told: exactly one of `url` and `block`."""

    url: str | None = Field(
        None,
        description="An Apprise URL: slack://, msteams://, discord://, mailto://, pagerduty://, json://, ...",
    )
    block: str | None = Field(
        None, description="A Prefect notification block, TYPE/NAME, as in slack-webhook/ops."
    )
    severity: Literal["low", "medium", "high"] = Field(
        "low",
        description="Least severity of a cluster that gets a message of its own; the rest goes into the audit's digest.",
    )
    digest: bool = Field(True, description="Whether a digest of the rest is sent.")

    @model_validator(mode="after")
    def _one_address(self) -> "AlertConfig":
        if (self.url is None) == (self.block is None):
            raise ValueError("an alert goes to one of url and block: leave the other out")
        return self


def _wrap_url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _wrap_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _wrap_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _wrap_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class AuditConfig(_Section):
    """One audit, whole."""

    name: str = Field("audit", min_length=1, description="Names the audit in MLflow and Prefect.")
    model: Annotated[ModelConfig, BeforeValidator(_wrap_name)] = Field(
        ModelConfig(), description="Hub id or folder, or a mapping."
    )
    source: Annotated[SourceConfig, BeforeValidator(_wrap_path)] = Field(
        description="The rows to audit: path, glob, URL, or a mapping."
    )
    reference: Annotated[SourceConfig, BeforeValidator(_wrap_path)] | None = Field(
        None,
        description="Rows you trust, in the same form; scores of new rows are judged against theirs. None: against the bulk of the batch.",
    )
    sentinels: Annotated[list[str], BeforeValidator(_wrap_list)] = Field(
        min_length=1, description="Sentinel files, or pack:NAME."
    )
    state: str = Field("sqlite:///poisonwatch.db", description="The ledger's SQLAlchemy URL.")
    tracking: str = Field("sqlite:///mlflow.db", description="The MLflow tracking URI.")
    seed: int = Field(0, description="Draws subset memberships.")
    stride: StrideConfig = Field(StrideConfig(), description="The attribution.")
    decision: DetectionConfig = Field(DetectionConfig(), description="From scores to flags.")
    screens: list[ScreenName] = Field(
        list(get_args(ScreenName)),
        description="Cheap screens that flag rows beside attribution; [] for none.",
    )
    probes: int = Field(
        2,
        ge=0,
        description="Triggers mined from the batch and put into copies of the sentinels; 0 for none.",
    )
    validation: ValidationConfig = Field(
        ValidationConfig(), description="What a row must be to be audited."
    )
    alerts: list[Annotated[AlertConfig, BeforeValidator(_wrap_url)]] = Field(
        default=[], description="Who is told when rows are flagged: Apprise URLs, or mappings."
    )
    on_flag: Literal["continue", "pause"] = Field(
        "continue",
        description="pause: a flow run with flagged rows waits in the Prefect UI until somebody says what they are.",
    )
    pause_hours: float = Field(
        24, gt=0, description="on_flag: pause waits so long; then the rows stay in quarantine."
    )
    mlflow_ui: str | None = Field(
        None,
        description="Where people open MLflow, for links; default `tracking`, where it is a server.",
    )
    dashboard: str | None = Field(
        None,
        description="Where people open `poisonwatch dashboard`, for links from MLflow, Prefect, alerts.",
    )
    review: bool = Field(
        True,
        description="Put flagged rows into a review queue in MLflow, and read the answers back.",
    )
    window: int = Field(
        2000, ge=0, description="Latest rows that are audited again when model or sentinels change."
    )
    reference_rows: int = Field(
        2000,
        ge=0,
        description="Trusted rows that an audit compares with, drawn by seed where there are more.",
    )
    replays: str | None = Field(
        None,
        description="Written into a run's config.yaml: the audit whose rows are audited again.",
    )
    version: str | None = Field(
        None,
        description="Written into a run's config.yaml: the Poisonwatch that ran it. Ignored when read.",
    )
    git_commit: str | None = Field(
        None,
        description="Written into a run's config.yaml: its commit, if run from a checkout. Ignored when read.",
    )

    def to_public_dict(self) -> dict[str, Any]:
        """The resolved settings without their secrets, as written to the run directory."""
        settings = self.model_dump(mode="json")
        settings["tracking"], settings["state"] = redact_url(self.tracking), redact_url(self.state)
        for source in filter(None, (settings["source"], settings["reference"])):
            source |= {
                key: redact_url(source[key]) for key in ("path", "sql") if source[key] is not None
            }
        for alert in filter(lambda alert: alert["url"], settings["alerts"]):
            scheme, separator, _ = alert["url"].partition("://")
            alert["url"] = f"{scheme}://***" if separator else "***"
        return settings


SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "source": SourceConfig,
    "reference": SourceConfig,
    "stride": StrideConfig,
    "stride.training": TrainingConfig,
    "decision": DetectionConfig,
    "validation": ValidationConfig,
    "alerts": AlertConfig,
}


def load_config(path: str | Path) -> AuditConfig:
    """Read an audit file.

    Raises ConfigError where the file is missing or not YAML, a key is unknown (naming the nearest
    known one), or a value is not allowed.
    """
    path = Path(path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: `poisonwatch init DIR` writes an audit file to start from"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(
            error, "problem_mark", None
        )  # what PyYAML says beside it quotes the line, which may hold a password
        where = (
            f"see line {mark.line + 1}, column {mark.column + 1}"
            if mark
            else "it holds control characters"
        )
        raise ConfigError(
            f"{path} is not YAML: {where} (texts with special characters need quotes)"
        ) from None
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{path} holds no settings: it must be a mapping with at least `source` and `sentinels`"
        )
    return resolve_config(settings, path.resolve().parent, str(path))


def resolve_config(settings: dict[str, Any], folder: Path, name: str = "settings") -> AuditConfig:
    """Check settings and make their relative paths start at `folder`."""
    try:
        config = AuditConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(
            f"{name}: " + "; ".join(_explain_error(dict(e)) for e in error.errors()[:3])
        ) from None
    try:
        return _resolve_paths(config, folder)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _resolve_paths(config: AuditConfig, folder: Path) -> AuditConfig:
    """The settings with relative paths from `folder`. Raises ConfigError where an environment
    variable that they name is not set.
    """

    def placed(source: SourceConfig, key: str) -> SourceConfig:
        where = {
            "path": source.path and _make_absolute(source.path, folder, f"{key}.path"),
            "hub": source.hub and _resolve_model_name(source.hub, folder),
            "sql": source.sql and _make_sqlite_absolute(source.sql, folder, f"{key}.sql"),
        }
        return source.model_copy(update=where | {"relative_to": source.relative_to or str(folder)})

    for alert in config.alerts:
        expand_variables(alert.url or "", "alerts")
    return config.model_copy(
        update={
            "source": placed(config.source, "source"),
            "reference": placed(config.reference, "reference") if config.reference else None,
            "sentinels": [
                s if s.startswith("pack:") or "://" in s else str(folder / Path(s).expanduser())
                for s in config.sentinels
            ],
            "state": _make_sqlite_absolute(config.state, folder, "state"),
            "tracking": _make_sqlite_absolute(config.tracking, folder, "tracking"),
            "model": config.model.model_copy(
                update={"name": _resolve_model_name(config.model.name, folder)}
            ),
        }
    )


def _make_absolute(path: str, folder: Path, key: str) -> str:
    """Where the environment's part of a path makes it absolute or a URL, it is left as it is."""
    expanded = expand_variables(path, key)
    if "://" in expanded or Path(expanded).is_absolute():
        return path
    return str(folder / Path(path).expanduser())


def _make_sqlite_absolute(url: str, folder: Path, key: str) -> str:
    scheme, separator, path = expand_variables(url, key).partition(":///")
    if (
        not scheme.startswith("sqlite")
        or not separator
        or path in ("", ":memory:")
        or Path(path).is_absolute()
    ):
        return url
    if ":///" not in url:
        raise ConfigError(
            f"{key}: {url} holds a relative path: make it absolute, or write sqlite:///${{NAME}}"
        )
    return url.replace(":///", f":///{folder}/", 1)


def _resolve_model_name(name: str, folder: Path) -> str:
    """A folder as an absolute path; a hub id as it is. Only a path begins with a dot, slash or
    tilde.
    """
    path = folder / Path(name).expanduser()
    return str(path) if path.is_dir() or name.startswith((".", "/", "~")) else name


def _explain_error(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}" + (
            ""
            if error["type"] == "missing" or error["loc"][0] in SECRET_SETTINGS
            else f" (got {redact_url(repr(error['input']))[:60]})"
        )
    known = _list_known_keys([part for part in error["loc"][:-1] if isinstance(part, str)])
    by_lower = {key.lower(): key for key in known}
    nearest = by_lower[
        difflib.get_close_matches(str(error["loc"][-1]).lower(), by_lower, n=1, cutoff=0.0)[0]
    ]
    return (
        f"unknown key {where}; the nearest known key is {nearest}; allowed are {', '.join(known)}"
    )


def _list_known_keys(path: list[str]) -> list[str]:
    return list(SECTIONS.get(".".join(path), AuditConfig).model_fields)
