"""Where rows are measured: the section `compute` of an audit file."""

from typing import Literal

from pydantic import Field, model_validator

from poisonwatch.source_config import Section


class ComputeConfig(Section):
    """Where rows are measured: in this process, or by the workers of a Ray cluster."""

    engine: Literal["local", "ray"] = "local"
    """local: this process. ray: workers with a model each; needs the extra `ray`."""
    address: str | None = None
    """ray: the cluster, auto or HOST:PORT. None: the one that RAY_ADDRESS names, else a Ray of this
    machine's that ends with the audit.
    """
    workers: int | None = Field(None, ge=1)
    """ray: how many hold the model; default one a free GPU, else one for every `threads` cores."""
    threads: int = Field(1, ge=1)
    """ray: threads of a worker; the last digits of what it measures depend on it."""
    folder: str | None = None
    """ray: a folder that all machines share, for rows and records. None: the user's cache, which
    other machines do not see.
    """

    @model_validator(mode="after")
    def _check_engine(self) -> "ComputeConfig":
        if self.engine == "local":
            # Compared with defaults: what a run writes of its settings names every one.
            for key in sorted(_find_set(self)):
                raise ValueError(f"{key} is for Ray: write engine: ray, or leave {key} out")
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                "ray:// is the address of Ray's client, which cannot share files with the workers: "
                "start the audit inside of the cluster (ray job submit), with address: auto"
            )
        return self


def _find_set(config: ComputeConfig) -> list[str]:
    """The keys beside `engine` that are not what they are by default."""
    set_apart = []
    for key, field in ComputeConfig.model_fields.items():
        if key != "engine" and getattr(config, key) != field.default:
            set_apart.append(key)
    return set_apart
