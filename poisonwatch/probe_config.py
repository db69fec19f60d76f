"""Which trained checkpoints are probed, and how often: the section `probe` of an audit file.

The section starts nothing by itself: `poisonwatch watch`, `poisonwatch probe --new` and deployments
do.
"""

from datetime import timedelta

from pydantic import Field, model_validator

from poisonwatch.schedule_config import LONGEST, SHORTEST_INTERVAL, Duration
from poisonwatch.source_config import Section


class ProbeConfig(Section):
    """Trained checkpoints that are asked the sentinels, each of them once."""

    checkpoints: str | None = Field(None, min_length=1)
    """Where training leaves checkpoints or adapters: a folder, or a pattern of folders such as
    out/checkpoint-*. A text in place of the section is this.
    """
    release: str | None = Field(None, min_length=1)
    """The manifest.json of the release that they are trained on. None: the rows of `source`."""
    trusted: str | None = Field(None, min_length=1)
    """A checkpoint or adapter that was tuned on trusted rows alone, by the same recipe: what that
    does to sentinels counts as honest. Folder or hub id.
    """
    every: Duration = timedelta(minutes=30)
    """How often `watch` looks for new ones."""

    @model_validator(mode="after")
    def _check_interval(self) -> "ProbeConfig":
        if not SHORTEST_INTERVAL <= self.every <= LONGEST:
            raise ValueError("every is between a minute and ten years: give one such as 30m")
        return self
