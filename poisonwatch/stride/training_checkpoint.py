"""The file in which a training keeps its state, and what says that it is this very training's."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.model.cache import get_cache_folder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.permissions import make_private_folder
from poisonwatch.stride.operators import Basis
from poisonwatch.stride.schedule import Schedule, hash_parts
from poisonwatch.stride.settings import TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingCheckpoint:
    """The state of the training with this `fingerprint` at `path`; without one nothing is kept."""

    path: Path | None
    fingerprint: str

    @classmethod
    def of_training(
        cls,
        path: Path | None,
        model: FrozenModel,
        schedule: Schedule,
        basis: Basis,
        settings: TrainingSettings,
    ) -> "TrainingCheckpoint":
        """The checkpoint of one training."""
        # Hashing all weights takes a while: not for nothing.
        if path is None:
            return cls(None, "")
        return cls(path, fingerprint_training(model, schedule, basis, settings))

    def load(self, state: dict[str, Tensor]) -> int:
        """Fill `state` from the file; returns the steps done, 0 where there is none of this very
        training.
        """
        if self.path is None or not self.path.exists():
            return 0
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != self.fingerprint:
                    logger.warning(
                        "checkpoint %s is of another training (its rows, model or settings "
                        "differ): starting anew",
                        self.path,
                    )
                    return 0
                saved = {name: file.get_tensor(name) for name in state}
        except (OSError, SafetensorError) as error:
            logger.warning("checkpoint %s cannot be read (%s): starting anew", self.path, error)
            return 0
        # Into the tensors that are there: the optimiser holds them already.
        for name, value in state.items():
            value.copy_(saved[name])
        return int(metadata["step"])

    def save(self, state: dict[str, Tensor], step: int) -> None:
        """Write the state after so many steps, whole or not at all. Raises OperationError where it
        cannot be written.
        """
        if self.path is None:
            return
        metadata = {"fingerprint": self.fingerprint, "step": str(step)}
        try:
            make_private_folder(self.path.parent)
            with replace_file(self.path) as part:
                save_file(state, part, metadata=metadata)
        except (OSError, SafetensorError) as error:
            raise OperationError(f"checkpoint {self.path} cannot be written: {error}") from error

    def delete(self) -> None:
        """Remove the file: the training is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def fingerprint_training(
    model: FrozenModel, schedule: Schedule, basis: Basis, settings: TrainingSettings
) -> str:
    """What defines the training: weights, split, rows, memberships, seed, settings (but not how
    often to save, or how much at a time).

    The basis stands for itself by its size: rows and model determine its directions, up to
    rounding.
    """
    # Sorted: the order of a state dict is its implementation's.
    weights = hashlib.sha256()
    for name, value in sorted(model.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy())
    dials = asdict(replace(settings, checkpoint_every=0, token_budget=0))
    return hash_parts(
        weights.hexdigest(),
        model.layer,
        basis.r,
        schedule.membership.K,
        schedule.seed,
        schedule.contents,
        dials,
    )


def locate_training_checkpoint(config: AuditConfig, model: Pretrained) -> Path:
    """Where a training of this audit keeps its state: in the user's cache, by audit, model and
    settings, so that a rerun finds it.
    """
    defining = [
        config.name,
        config.source.address,
        model.identity,
        config.seed,
        config.stride.model_dump(mode="json"),
    ]
    digest = hashlib.sha256(json.dumps(defining).encode()).hexdigest()
    return get_cache_folder() / "checkpoints" / f"{digest[:16]}.safetensors"
