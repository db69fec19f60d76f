"""What an audit measured outlives it: kept in one safetensors file, it attributes any new query
without the rows.

Of an audit that fitted operators (format 2):

    a (K, r, D) bfloat16       the operators: of the shared subsets, then of single rows
    subsets (n, d)             the shared subsets that hold each row
    alone (m,)                 the rows with a subset to themselves, in its order
    basis (D, r - 1)
    features (n, f) bfloat16, centre and spread (n,), ids (n, 32)      what is known of the rows
    signs (n,)                 -1 where training lowers a row's answer

Of one that measured every row alone (format 3), these last two lines, the basis, and

    A (r, r), S (D, D)                 sums of the Fisher's factors over tokens
    gradients (n, r * D) bfloat16      c_i G_i; missing where they took more than stride.memory_gb:
    sketch (n, k) uint8, sketch_scale (n, c)       then, what was kept of them
    sketch_left (r, r), sketch_right (D, b)        what made sketches of them

The metadata names format, model with its fingerprint and reading, seed, and settings.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array, vstack
from torch import Tensor

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.errors import RunError
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.recovery.membership import Membership
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.layout import EXPLAINING_FILES, OPERATORS_FILE
from poisonwatch.run_directory.tensor_file import save_with_room
from poisonwatch.stride.fitted import FittedOperators, SingleRows
from poisonwatch.stride.operators import Basis, Moments, Operators, Preconditioner
from poisonwatch.stride.records import pack_ids
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.settings import Settings
from poisonwatch.stride.sketch import RowSketches, Sketch
from poisonwatch.stride.streamed import StreamedFit

OPERATORS_FORMAT = "2"
ROWS_FORMAT = "3"


def save_operators(
    folder: Path,
    fitted: FittedOperators | StreamedFit,
    config: AuditConfig,
    model_fingerprint: str,
    model_reading: str = "",
) -> None:
    """Write `operators.safetensors`, whole or not at all."""
    if isinstance(fitted, StreamedFit):
        tensors, numbers = _collect_rows(fitted)
        format = ROWS_FORMAT
    else:
        tensors, numbers = _collect_operators(fitted)
        format = OPERATORS_FORMAT
    metadata = {
        "format": format,
        "model": config.model.name,
        "model_fingerprint": model_fingerprint,
        "model_reading": model_reading,
        "seed": str(config.seed),
        "settings": json.dumps(asdict(fitted.settings)),
        "stride": config.stride.model_dump_json(),
        **numbers,
    }
    on_cpu = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with replace_file(folder / OPERATORS_FILE) as part:
        if isinstance(fitted, StreamedFit) and fitted.sketch is not None:
            shape = len(fitted.ids), fitted.sketch.bytes_of_codes
            with save_with_room(part, on_cpu, metadata, "sketch", shape) as room:
                fitted.table.copy_sketch_codes(room)
        else:
            save_file(on_cpu, part, metadata)


def _collect_rows(fitted: StreamedFit) -> tuple[dict[str, Tensor], dict[str, str]]:
    measured, moments = fitted.measured, fitted.preconditioner.moments
    tensors = {
        "basis": fitted.basis.directions.float(),
        "A": moments.A,
        "S": moments.S,
        "features": torch.from_numpy(measured.features).to(torch.bfloat16),
        "centre": torch.from_numpy(measured.centre).float(),
        "spread": torch.from_numpy(measured.spread).float(),
        "signs": torch.from_numpy(measured.signs).to(torch.int8),
        "ids": torch.from_numpy(pack_ids(fitted.ids).copy()),
    }
    if fitted.table.keeps_gradients:
        tensors["gradients"] = fitted.table.collect_scaled_gradients(measured.spread)
    if fitted.sketch is not None:
        tensors["sketch_left"] = fitted.sketch.left
        tensors["sketch_right"] = fitted.sketch.right
        tensors["sketch_scale"] = torch.from_numpy(fitted.table.collect_sketch_scale())
    return tensors, {"power": repr(moments.power), "tokens": str(moments.tokens)}


def _collect_operators(fitted: FittedOperators) -> tuple[dict[str, Tensor], dict[str, str]]:
    K, d, n = fitted.settings.K, fitted.settings.d, len(fitted.ids)
    # By columns: d subsets for each row in turn.
    shared = csr_array(fitted.M[:K]).tocsc()
    tensors = {
        "a": fitted.operators.a.to(torch.bfloat16),
        "basis": fitted.operators.basis.directions.float(),
        "subsets": torch.from_numpy(shared.indices.reshape(n, d).astype(np.int32)),
        "alone": torch.from_numpy(csr_array(fitted.M[K:]).indices.astype(np.int32)),
        "features": torch.from_numpy(fitted.features).to(torch.bfloat16),
        "centre": torch.from_numpy(fitted.centre).float(),
        "spread": torch.from_numpy(fitted.spread).float(),
        "signs": torch.from_numpy(fitted.signs).to(torch.int8),
        "ids": torch.from_numpy(pack_ids(fitted.ids).copy()),
    }
    return tensors, {"eta": repr(fitted.eta), "shift": repr(fitted.shift)}


@dataclass(frozen=True, slots=True)
class SavedOperators:
    """The operators of a past audit, as they lie on disk: `tensors` by name, and `metadata`."""

    run_dir: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def stride(self) -> StrideConfig:
        """The attribution's settings, as configured."""
        return StrideConfig.model_validate_json(self.metadata["stride"])

    @property
    def settings(self) -> Settings:
        """The attribution's settings, as they were resolved."""
        saved = json.loads(self.metadata["settings"])
        # Earlier versions measured rows at one layer.
        saved["further"] = tuple(saved.get("further", ()))
        # And wrote memory_bytes as well.
        return Settings(**{field.name: saved[field.name] for field in fields(Settings)})

    def load_on(self, pretrained: Pretrained) -> FittedOperators | SavedRows:
        """The operators, or the rows, on their model, ready to attribute. Raises RunError where the
        model is another one or reads otherwise, or the rows were too many to keep.
        """
        wanted = self.metadata["model_fingerprint"]
        if pretrained.fingerprint != wanted:
            raise RunError(
                f"the operators in {self.run_dir} belong to {self.metadata['model']} with "
                f"fingerprint {wanted[:12]}, not to a model with fingerprint "
                f"{pretrained.fingerprint[:12]}: name the model of the audit with --model"
            )
        # Earlier versions wrote none, and models of tests have none.
        reading = self.metadata.get("model_reading")
        if reading and pretrained.reading and pretrained.reading != reading:
            raise RunError(
                f"the operators in {self.run_dir} were measured with another tokenizer or chat "
                f"template of {self.metadata['model']} than it has now: name the model as it was "
                "with --model, or audit again"
            )
        if self.metadata["format"] == ROWS_FORMAT:
            return self._load_rows(pretrained)
        settings, tensors = self.settings, self.tensors
        return FittedOperators(
            settings=settings,
            model=FrozenModel(pretrained.model, settings.layer),
            encoder=pretrained.make_encoder(self.stride.max_tokens),
            ids=self._list_ids(),
            operators=self._load_operators(pretrained.device),
            M=self._load_memberships(settings.K),
            features=tensors["features"].float().numpy(),
            centre=tensors["centre"].double().numpy(),
            spread=tensors["spread"].double().numpy(),
            # Earlier versions knew no rows whose answer is lowered.
            signs=tensors.get("signs", torch.ones(len(tensors["ids"]))).double().numpy(),
        )

    def _list_ids(self) -> tuple[str, ...]:
        return tuple(bytes(row).hex() for row in self.tensors["ids"].numpy())

    def _load_rows(self, pretrained: Pretrained) -> SavedRows:
        if not self.tensors.keys() & {"gradients", "sketch"}:
            raise RunError(
                f"the audit in {self.run_dir} had {len(self.tensors['ids'])} rows, whose gradients "
                "took more than stride.memory_gb, and were not kept, nor sketches of them: ask an "
                "audit of fewer rows, or with a stride.sketch above 0"
            )
        settings, tensors, device = self.settings, self.tensors, pretrained.device
        moments = Moments(
            tensors["A"].to(device),
            tensors["S"].to(device),
            float(self.metadata["power"]),
            int(self.metadata["tokens"]),
        )
        return SavedRows(
            settings=settings,
            model=FrozenModel(pretrained.model, settings.layer),
            encoder=pretrained.make_encoder(self.stride.max_tokens),
            ids=self._list_ids(),
            basis=Basis(tensors["basis"].to(device)),
            preconditioner=Preconditioner(moments, self.stride.damping),
            gradients=tensors.get("gradients"),
            centre=tensors["centre"].double().numpy(),
            spread=tensors["spread"].double().numpy(),
            signs=tensors["signs"].double().numpy(),
            features=tensors["features"].float().numpy(),
            **self._load_sketches(device),
        )

    def _load_sketches(self, device: torch.device) -> dict[str, Any]:
        """`sketch` and `sketches` of `SavedRows`, where gradients took too much room. Codes stay
        where they lie in the file.
        """
        if "sketch" not in self.tensors:
            return {}
        left, right = (self.tensors[f"sketch_{name}"].to(device) for name in ("left", "right"))
        codes, scale = self.tensors["sketch"].numpy(), self.tensors["sketch_scale"].numpy()
        return {
            "sketch": Sketch(left, right, scale.shape[1]),
            "sketches": RowSketches(codes, scale),
        }

    def _load_operators(self, device: torch.device) -> Operators:
        return Operators(
            a=self.tensors["a"].float().to(device),
            basis=Basis(self.tensors["basis"].to(device)),
            eta=float(self.metadata["eta"]),
            shift=float(self.metadata["shift"]),
        )

    def _load_memberships(self, K: int) -> csr_array:
        """M: the shared subsets, then those of single rows."""
        subsets = self.tensors["subsets"].numpy().astype(np.int64)
        alone = SingleRows(self.tensors["alone"].numpy(), self.tensors["a"])
        return csr_array(vstack([Membership(subsets, K).matrix(), alone.make_matrix(len(subsets))]))


def load_operators(run_dir: Path, seal: str | None = None) -> SavedOperators:
    """Read the operators of a past audit. Raises RunError where there are none, they are damaged or
    of another format, or they, the settings or the scores that name their rows are not what the
    audit wrote. `seal` is the run directory's, where it is known (`checksums`).
    """
    path = run_dir / OPERATORS_FILE
    if not path.is_file():
        raise RunError(
            f"{run_dir} holds no {OPERATORS_FILE}: name the run directory of a finished audit"
        )
    require_unchanged(run_dir, *EXPLAINING_FILES, seal=seal)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            _check_format(path, metadata.get("format"))
            # The file itself cannot be iterated.
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    return SavedOperators(run_dir, tensors, metadata)


def _check_format(path: Path, found: str | None) -> None:
    if found not in (OPERATORS_FORMAT, ROWS_FORMAT):
        raise RunError(
            f"{path} has format {found}, this version reads {OPERATORS_FORMAT} and {ROWS_FORMAT}: "
            "repeat the audit of its config.yaml"
        )
