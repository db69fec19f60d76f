"""Operators outlive their audit: kept in one safetensors file, they attribute any new query without
the rows.

    a (K, r, D) bfloat16      subsets (n, d) and alone (m,): rows of the shared subsets, and rows with one to themselves, in this order
    basis (D, r - 1)          features (n, f) bfloat16, centre and spread (n,), ids (n, 32): what is known of the rows

The metadata names format, model and its fingerprint, seed, and settings.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array, vstack

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.errors import RunError
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.recovery.membership import Membership
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.operators import Basis, Operators
from poisonwatch.stride.settings import Settings

OPERATORS_FORMAT = "2"


def save_operators(
    folder: Path, fitted: Fitted, config: AuditConfig, model_fingerprint: str
) -> None:
    """Write `operators.safetensors`, whole or not at all."""
    K, d, n = fitted.settings.K, fitted.settings.d, len(fitted.ids)
    shared = csr_array(fitted.M[:K]).tocsc()
    tensors = {
        "a": fitted.operators.a.to(torch.bfloat16),
        "basis": fitted.operators.basis.directions.float(),
        "subsets": torch.from_numpy(shared.indices.reshape(n, d).astype(np.int32)),
        "alone": torch.from_numpy(csr_array(fitted.M[K:]).indices.astype(np.int32)),
        "features": torch.from_numpy(fitted.features).to(torch.bfloat16),
        "centre": torch.from_numpy(fitted.centre).float(),
        "spread": torch.from_numpy(fitted.spread).float(),
        "ids": torch.from_numpy(
            np.frombuffer(bytes.fromhex("".join(fitted.ids)), dtype=np.uint8).reshape(n, -1).copy()
        ),
    }
    metadata = {
        "format": OPERATORS_FORMAT,
        "model": config.model.name,
        "model_fingerprint": model_fingerprint,
        "seed": str(config.seed),
        "settings": json.dumps(asdict(fitted.settings)),
        "stride": config.stride.model_dump_json(),
        "eta": repr(fitted.operators.eta),
        "shift": repr(fitted.operators.shift),
    }
    with replace_file(folder / OPERATORS_FILE) as part:
        save_file(
            {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, part, metadata
        )


@dataclass(frozen=True, slots=True)
class SavedOperators:
    """The operators of a past audit, as they lie on disk: `tensors` by name, and `metadata`."""

    run_dir: Path
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]

    @property
    def stride(self) -> StrideConfig:
        """The attribution's settings, as configured."""
        return StrideConfig.model_validate_json(self.metadata["stride"])

    def on(self, pretrained: Pretrained) -> Fitted:
        """The operators on their model, ready to attribute. Raises RunError where the model is
        another one.
        """
        wanted = self.metadata["model_fingerprint"]
        if pretrained.fingerprint != wanted:
            raise RunError(
                f"the operators in {self.run_dir} belong to {self.metadata['model']} with fingerprint {wanted[:12]}, "
                f"not to a model with fingerprint {pretrained.fingerprint[:12]}: name the model of the audit with --model"
            )
        settings = Settings(**json.loads(self.metadata["settings"]))
        t = self.tensors
        device = pretrained.model.device
        operators = Operators(
            t["a"].float().to(device),
            Basis(t["basis"].to(device)),
            float(self.metadata["eta"]),
            float(self.metadata["shift"]),
        )
        alone = t["alone"].numpy()
        single = csr_array(
            (np.ones(len(alone)), (np.arange(len(alone)), alone)), shape=(len(alone), len(t["ids"]))
        )
        M = csr_array(
            vstack([Membership(t["subsets"].numpy().astype(np.int64), settings.K).matrix(), single])
        )
        ids = tuple(bytes(row).hex() for row in t["ids"].numpy())
        encoder = ChatEncoder(pretrained.tokenizer, self.stride.max_tokens)
        features, centre, spread = (
            t["features"].float().numpy(),
            t["centre"].double().numpy(),
            t["spread"].double().numpy(),
        )
        return Fitted(
            settings,
            FrozenModel(pretrained.model, settings.layer),
            encoder,
            ids,
            operators,
            M,
            features,
            centre,
            spread,
        )


def load_operators(run_dir: Path) -> SavedOperators:
    """Read the operators of a past audit. Raises RunError where there are none, or they are damaged
    or of another format.
    """
    path = run_dir / OPERATORS_FILE
    if not path.is_file():
        raise RunError(
            f"{run_dir} holds no {OPERATORS_FILE}: name the run directory of a finished audit"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != OPERATORS_FORMAT:
                raise RunError(
                    f"{path} has format {metadata.get('format')}, this version reads {OPERATORS_FORMAT}: repeat the audit of its config.yaml"
                )
            names = file.keys()  # the file itself cannot be iterated
            return SavedOperators(
                run_dir, {name: file.get_tensor(name) for name in names}, metadata
            )
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
