"""Adapters: what fine-tuning with peft leaves, in a folder of its own. It is merged into its base,
which is then a model like any other.

    adapter_config.json          the kind of adapter, the modules it changes, and its base
    adapter_model.safetensors    its weights

Of a folder's text only peft's own settings are read; nothing in it is run.
"""

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poisonwatch.errors import ModelError
from poisonwatch.text.display import excerpt, get_first_line

if TYPE_CHECKING:  # whoever only asks where a model is need not wait for these
    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAX_NAME_CHARS = 200
TRIED_TOKENS = 32  # that a merged model is compared on with the unmerged one

# peft saves modules of a resized vocabulary under these names, too.
_SAVED_TWICE = re.compile(r"\.(?:modules_to_save|original_module)\.")
# What peft raises where settings and base do not go together; modules may be named by a pattern.
_UNFIT = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, re.error)
_MISFIT = re.compile(r"size mismatch for (\S+):")


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def check_adapter(folder: Path) -> Path:
    """The folder, of an adapter whose weights can be read. Raises ModelError where it is none."""
    if not holds_adapter(folder):
        raise ModelError(
            f"adapter folder {folder} has no {ADAPTER_CONFIG}: "
            "name a folder saved by peft's save_pretrained"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"adapter folder {folder} has no {ADAPTER_WEIGHTS}: an adapter_model.bin is a pickle, "
            "which can run code, and is never opened; where you trust it, load it with peft's "
            "PeftModel.from_pretrained and save it again by save_pretrained"
        )
    return folder


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's settings, as JSON. Raises ModelError where they are none."""
    path = folder / ADAPTER_CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {get_first_line(error)}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{path} holds no settings: name a folder saved by peft's save_pretrained")
    return settings


def get_base_name(folder: Path) -> str | None:
    """What an adapter says it was trained on: a hub id, or a path on the machine it was trained on;
    None where it says nothing.
    """
    name = read_adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return None
    return name


def require_peft(folder: Path) -> None:
    """Raises ModelError where an adapter cannot be merged, for peft is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"adapter {folder} needs peft: pip install 'poisonwatch[adapters]'"
        ) from error


def merge_adapter(model: "PreTrainedModel", folder: Path) -> tuple["PreTrainedModel", str]:
    """The model with the adapter's weights in its own, which it loses, and the library that merged
    them, with its version; sums are in the model's own precision.

    Raises ModelError where peft is not installed, the adapter cannot be merged into any model, or
    was trained on another base than this.
    """
    check_adapter(folder)
    require_peft(folder)
    with warnings.catch_warnings():
        # What peft warns of is refused below, or mended.
        warnings.simplefilter("ignore")
        settings = _read_peft_config(folder)
        _refuse_unmergeable(folder, settings)
        _fit_vocabulary(model, folder)
        wrapped = _attach(model, folder, settings)
        _separate_head(wrapped)
        try:
            trained = _compute_logits(wrapped)
            # "safe": weights that are no numbers are an error.
            merged = wrapped.merge_and_unload(safe_merge=True)
        except (NotImplementedError, ValueError, AttributeError) as error:
            raise _refuse_kind(folder, settings, get_first_line(error).rstrip(".")) from error
        # Some families use weights without the layers that hold them: an adapter of these layers
        # did nothing in training, and would do something once it is merged.
        if _differ(trained, _compute_logits(merged)):
            raise _refuse_kind(folder, settings, "merged, it computes what it did not in training")
    return merged, _name_peft()


def _name_peft() -> str:
    import peft

    return f"peft {peft.__version__}"


def _compute_logits(model: Any) -> "Tensor":
    """What a model, or one with an adapter beside it, says after some tokens: (tokens, V)."""
    import torch

    embeddings = model.get_input_embeddings().weight
    ids = torch.arange(TRIED_TOKENS, device=embeddings.device) % embeddings.shape[0]
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=ids[None]).logits[0]
    return logits


def _differ(x: "Tensor", y: "Tensor") -> bool:
    """Whether two ways to the same numbers lead to others: by more than half of the digits of their
    type, all in all.
    """
    import torch

    tolerance = torch.finfo(x.dtype).eps ** 0.5
    x, y = x.float(), y.float()
    return bool((x - y).norm() > tolerance * x.norm())


def _read_peft_config(folder: Path) -> "PeftConfig":
    from peft import PeftConfig

    said = read_adapter_config(folder)
    # peft would import the module that it names.
    if said.get("megatron_config"):
        raise ModelError(
            f"adapter {folder} is made for Megatron (megatron_config): save it for a model of "
            "transformers"
        )
    if not isinstance(said.get("peft_type"), str):
        raise ModelError(
            f"{folder / ADAPTER_CONFIG} does not say what kind of adapter it is (peft_type): "
            "name a folder saved by peft's save_pretrained"
        )
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            settings: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{folder / ADAPTER_CONFIG} describes no adapter that this peft knows: "
            f"{get_first_line(error)}"
        ) from error
    unknown = [str(each.message) for each in warned if "nexpected keyword" in str(each.message)]
    if unknown:
        # A setting that is left out may change what the weights mean.
        raise ModelError(
            f"adapter {folder} was saved by peft {said.get('peft_version', 'of another version')}, "
            f"with settings that the installed one does not know: update peft "
            f"({excerpt(unknown[0], MAX_NAME_CHARS)})"
        )
    return settings


def _refuse_unmergeable(folder: Path, settings: "PeftConfig") -> None:
    if settings.is_prompt_learning or settings.is_adaption_prompt:
        raise _refuse_kind(folder, settings, "it changes what a model is given, and no weights")
    if settings.task_type not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"adapter {folder} is trained for {settings.task_type}: "
            "an audit needs one that was trained for CAUSAL_LM"
        )


def _refuse_kind(folder: Path, settings: "PeftConfig", reason: str) -> ModelError:
    kind = str(getattr(settings.peft_type, "value", settings.peft_type))
    return ModelError(
        f"adapter {folder} ({kind}) cannot be merged into its base: "
        f"{excerpt(reason, MAX_NAME_CHARS)}; audit with one that can be, as LoRA, or with the base"
    )


def _attach(model: "PreTrainedModel", folder: Path, settings: "PeftConfig") -> "PeftModel":
    """The model with the adapter beside its weights, all of which found their places."""
    from peft import PeftModel

    try:
        wrapped = PeftModel(model, settings)
        # Some families have other names for their modules in files.
        names = getattr(model, "_checkpoint_conversion_mapping", {})
        found = wrapped.load_adapter(str(folder), "default", torch_device="cpu", key_mapping=names)
    except _UNFIT as error:
        misfit = _MISFIT.search(str(error))
        said = get_first_line(error).rstrip(".")
        if misfit:
            said = f"other shapes, of {_name_module(misfit.group(1))} for one"
        raise _refuse_base(folder, said) from error
    # peft goes on without the one, and with random numbers for the other.
    unexpected = [key for key in found.unexpected_keys if not _SAVED_TWICE.search(key)]
    if unexpected:
        lacking = _name_module(unexpected[0])
        raise _refuse_base(folder, f"the base has no place for its weights of {lacking}")
    if found.missing_keys:
        lacking = _name_module(found.missing_keys[0])
        raise _refuse_base(folder, f"it has no weights for {lacking} of the base")
    return wrapped


def _refuse_base(folder: Path, reason: str) -> ModelError:
    trained_on = get_base_name(folder)
    wanted = "the one that it was trained on"
    if trained_on:
        wanted += f" ({excerpt(trained_on, MAX_NAME_CHARS)})"
    return ModelError(
        f"adapter {folder} does not fit the base: {excerpt(reason, MAX_NAME_CHARS)}; "
        f"name {wanted} as model.name"
    )


def _name_module(key: str) -> str:
    """The module of a weight of peft's: "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    is of model.layers.0.mlp.up_proj.
    """
    name = key.removeprefix("base_model.").removeprefix("model.")
    return re.split(
        r"\.(?:lora_|base_layer|modules_to_save|token_adapter|default|weight|bias)", name
    )[0]


def _fit_vocabulary(model: "PreTrainedModel", folder: Path) -> None:
    """Give the model as many embeddings as the adapter brings: a trainer that added tokens saved
    them all, input and output.
    """
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    rows = _count_saved_rows(model, embeddings, folder)
    if rows is None or rows == embeddings.weight.shape[0]:
        return
    if head is not None and head.weight is not embeddings.weight:
        saved = _count_saved_rows(model, head, folder)
        if saved != rows:
            raise _refuse_base(
                folder, f"it has {rows} embeddings of tokens, and {saved or 'no'} rows of the head"
            )
    # New rows need no likely values: the adapter's take their place.
    model.resize_token_embeddings(rows, mean_resizing=False)


def _count_saved_rows(model: "PreTrainedModel", module: Any, folder: Path) -> int | None:
    """The rows of a module's weight matrix that lie, whole, in the adapter's file; None where none
    do.
    """
    from safetensors import SafetensorError, safe_open

    (name,) = [name for name, each in model.named_modules() if each is module]
    prefix = f"base_model.model.{name}."
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            for key in file.keys():  # noqa: SIM118  (the file itself cannot be iterated)
                if key.startswith(prefix) and key.endswith("weight") and ".lora_" not in key:
                    return int(file.get_slice(key).get_shape()[0])
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter {folder} cannot be loaded: {get_first_line(error)}") from error
    return None


def _separate_head(wrapped: "PeftModel") -> None:
    """Give a head that shares its weights with the input embeddings its own, where an adapter
    changes one of the two: merged into what they share, it would change both.
    """
    from torch import nn

    model: Any = wrapped.get_base_model()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    plain_embeddings = getattr(embeddings, "base_layer", embeddings)
    plain_head = getattr(head, "base_layer", head)
    is_changed = plain_embeddings is not embeddings or plain_head is not head
    if not is_changed or plain_head.weight is not plain_embeddings.weight:
        return
    plain_head.weight = nn.Parameter(plain_head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
