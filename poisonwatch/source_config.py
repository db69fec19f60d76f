"""Where rows are pulled from, and how they are read: the sections `source` and `reference` of an
audit file.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from poisonwatch.text.redaction import show_place
from poisonwatch.text.secrets import Secrets, recall_secrets


class Section(BaseModel):
    # A misspelt key must not pass for a default.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


FormatName = Literal["auto", "alpaca", "prompt", "messages", "sharegpt", "preference", "text"]
Role = Literal["system", "user", "assistant", "tool"]
TrainedTurns = Literal["marked", "all", "last"]
# The rules by which rows are read: where they change, every file is read anew.
READING_RULES = 2


class SourceConfig(Section):
    """Where rows are pulled from: exactly one of `path`, `hub` and `sql`, and how their fields are
    read.
    """

    path: str | None = None
    """A file, folder, glob or URL (s3://, gs://, https://, hf://, ...) of rows."""
    hub: str | None = None
    """A data set on the Hugging Face hub, such as tatsu-lab/alpaca."""
    subset: str | None = None
    """hub: the data set's configuration."""
    split: str | None = None
    """hub: the split; train by default, and all of them of a folder that `datasets` saved."""
    revision: str | None = None
    """hub: commit, branch or tag."""
    sql: str | None = None
    """A SQLAlchemy URL; write ${NAME} for what the environment holds."""
    query: str | None = None
    """sql: the SELECT that gives the rows, each column a field."""
    watermark: str | None = None
    """sql: a column that only grows; a later pull takes what lies beyond its last value."""
    format: FormatName = "auto"
    """Row format; auto reads it off the field names."""
    fields: dict[str, str] = Field({})
    """What the format's fields are called here, as in {prompt: question, response: answer}."""
    template: str | None = None
    """text: how prompt and response stand in it, as in 'Q: {prompt}\\nA: {response}'."""
    roles: dict[str, Role] = Field({})
    """What roles are called here, beside the usual names, as in {bing: assistant}."""
    train_on: TrainedTurns = "marked"
    """Assistant turns that the trainer's loss is on. marked: all but those with weight 0, train:
    false or loss: false; all: whatever their marks; last: the last turn only.
    """
    ignore: list[str] = Field([])
    """Fields that are not read and need not be told of, such as id."""
    follow_links: bool = False
    """Follow links that lead out of the folder that the source is."""
    max_unpacked_gb: float = Field(64.0, gt=0)
    """path: largest file, unpacked; a packed or dictionary-encoded file can hold a thousand times
    its size.
    """
    max_unpacked_ratio: float = Field(200.0, gt=1)
    """path: most that a packed file may grow when it is unpacked, beyond its first 64 MiB."""

    # The folder that file names in results are relative to: no setting, but what reading the file
    # knows, so neither dumped nor validated.
    _base_folder: str | None = None

    @model_validator(mode="after")
    def _check_place(self) -> "SourceConfig":
        given = [name for name in ("path", "hub", "sql") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a source is one of path, hub and sql; given are {', '.join(given) or 'none'}"
            )
        needs = {"query": "sql", "watermark": "sql", "subset": "hub", "revision": "hub"}
        for key, needed in needs.items():
            if getattr(self, key) is not None and getattr(self, needed) is None:
                raise ValueError(f"{key} goes with {needed}, and there is none")
        if self.sql is not None and self.query is None:
            raise ValueError("sql needs a query: the SELECT that gives the rows")
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """The settings that say how rows are read, as plain JSON: read by others, they are other
        rows.
        """
        return {
            "rules": READING_RULES,
            "format": self.format,
            "fields": self.fields,
            "template": self.template,
            "roles": self.roles,
            "train_on": self.train_on,
        }

    @property
    def address(self) -> str:
        """Where the rows are, for people: without secrets."""
        return show_place(self.path or self.sql or f"hf://datasets/{self.hub}")

    @property
    def secrets(self) -> Secrets:
        """What must not be shown of the source."""
        return Secrets((self.path, self.sql, self.hub), queries=(self.query,))

    def with_base_folder(self, folder: str | Path) -> "SourceConfig":
        """The same source; files below `folder` are named relative to it in results."""
        copy = self.model_copy()
        copy._base_folder = str(folder)
        return copy

    def get_display_name(self, path: str) -> str:
        """A file's name in results: relative to the base folder where it lies below it."""
        shown = path
        if self._base_folder and Path(path).is_relative_to(self._base_folder):
            shown = str(Path(path).relative_to(self._base_folder))
        # A file's own name may look like anything: of it, only what is known is taken out.
        if self.path and ("${" in self.path or "://" in self.path):
            shown = recall_secrets(self.path).conceal_known(shown)
        if "://" in shown:
            shown = show_place(shown)
        return shown
