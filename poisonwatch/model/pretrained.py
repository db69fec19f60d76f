"""Loading a model and its tokenizer. Weights are read from safetensors only, and none is made up
where it is missing; an adapter is merged into them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.adapter import merge_adapter
from poisonwatch.model.architecture import choose_model_class
from poisonwatch.model.devices import find_input_device, is_spread, spread
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.files import ModelFiles, find_model_files
from poisonwatch.model.fingerprints import list_weights
from poisonwatch.model.products import (
    LEAST_PARAMETERS,
    describe_products,
    has_bfloat16_products,
    use_bfloat16_products,
)
from poisonwatch.model.threads import limit_threads
from poisonwatch.model.weights import require_room_for_weights
from poisonwatch.rendering.chat_template import (
    DEFAULT_SETTINGS,
    ChatTemplate,
    TemplateSettings,
    list_special_tokens,
)
from poisonwatch.text.display import get_first_line

# Those that make tokens of text and numbers of tokens.
LIBRARIES = (np, tokenizers, torch, transformers)


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A loaded model, with its `fingerprint` and `reading` (see `fingerprints`); `rendering` says
    how rows are written for it, `merged_by` which library merged an adapter, if any.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    reading: str = ""
    rendering: TemplateSettings = DEFAULT_SETTINGS
    merged_by: str = ""
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where tokens go in, and what an audit makes of them stands."""
        return find_input_device(self.model)

    @property
    def precision(self) -> str:
        """What numbers are rounded to: "torch.float32", or "torch.float32, bfloat16 products"."""
        return describe_products(self.model)

    @property
    def identity(self) -> tuple[str, ...]:
        """All that numbers which are measured with it depend on, to the last digit: what it
        computes, what it is given for a row, what numbers are rounded to, where, and by which
        libraries.
        """
        return (
            self.fingerprint,
            self.reading,
            self.precision,
            str(self.device),
            *(f"{of.__name__} {of.__version__}" for of in LIBRARIES),
            self.merged_by,
        )

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """How its control tokens are spelt, turn markers that it does not name included."""
        return list_special_tokens(self.tokenizer)

    def make_encoder(self, max_tokens: int = 512) -> ChatEncoder:
        """What encodes rows for this model. Raises ModelError where its template cannot be used."""
        return ChatEncoder(self.tokenizer, max_tokens, self.rendering, self._told)


# What transformers and safetensors raise for files that they cannot make a model of.
LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    ImportError,
    SafetensorError,
)


def load_pretrained(config: ModelConfig, found: ModelFiles | None = None) -> Pretrained:
    """Load a model and its tokenizer, from where they were `found`. Raises what `find_model_files`
    does, and ModelError where it cannot be loaded whole.
    """
    found = found or find_model_files(config)
    rendering = TemplateSettings.read(config)
    device = _choose_device(config)
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = _load_tokenizer(config, found)
        model, merged_by = _load_model(config, found, device), ""
        if found.adapter is not None:
            model, merged_by = merge_adapter(model, found.adapter)
        if config.device_map is None:
            # transformers wraps .to() in a way that loses its type.
            torch.nn.Module.to(model, torch.device(device))
        elif found.adapter is not None:
            model = spread(model)
    except LOAD_ERRORS as error:
        problem = f"model {config.name} cannot be loaded: {get_first_line(error)}"
        if isinstance(error, SafetensorError | json.JSONDecodeError):
            problem += "; a file of it is damaged: fetch or copy it again"
        raise ModelError(problem) from error
    # A template that cannot be used is told of before anything is computed.
    ChatTemplate(tokenizer, rendering).warn_of_unread_settings()
    if found.adapter is not None:
        _refuse_tokens_without_embedding(found.adapter, model, tokenizer)
    limit_threads()
    if _choose_bfloat16_products(config, model):
        use_bfloat16_products(model)
    return Pretrained(model, tokenizer, found.fingerprint, found.reading, rendering, merged_by)


def _load_tokenizer(config: ModelConfig, found: ModelFiles) -> PreTrainedTokenizerBase:
    """The tokenizer that training used: an adapter's own, or its base's with the adapter's chat
    template.
    """
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if found.tokenizer != found.folder:
        # An adapter's folder does not say of which family its model is.
        options["config"] = AutoConfig.from_pretrained(found.folder, **options)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(found.tokenizer, **options)
    if found.chat_template is not None:
        tokenizer.chat_template = found.chat_template.read_text(encoding="utf-8")
    return tokenizer


def _load_model(config: ModelConfig, found: ModelFiles, device: str) -> PreTrainedModel:
    """The model on the CPU, or where `device_map` puts its parts; all its weights were found."""
    # An adapter is merged in main memory: parts that lie elsewhere cannot be merged with.
    device_map = config.device_map if found.adapter is None else None
    dtype = _choose_dtype(config, device)
    if config.device_map is None:
        files = list_weights(found.folder)
        require_room_for_weights(config.name, found.folder, files, dtype, torch.device(device))
    model_class = choose_model_class(found.folder, config.trust_remote_code)
    loaded: Any = model_class.from_pretrained(
        found.folder,
        dtype=dtype,
        # A pickle runs code when it is read: no other format of weights is.
        use_safetensors=True,
        trust_remote_code=config.trust_remote_code,
        output_loading_info=True,
        device_map=device_map,
    )
    model: PreTrainedModel
    model, loading = loaded
    # transformers would go on with random numbers in their place.
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelError(
            f"model {config.name} lacks the weights {missing}: "
            "save it whole, language-model head included"
        )
    return model


def _refuse_tokens_without_embedding(
    adapter: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    layer: Any = model.get_input_embeddings()
    embeddings = len(layer.weight)
    if len(tokenizer) > embeddings:
        raise ModelError(
            f"adapter {adapter} does not fit the base: its tokenizer has {len(tokenizer)} tokens, "
            f"and the model embeddings of {embeddings}; train with the input embeddings and the "
            "head in modules_to_save, or name the base that has them as model.name"
        )


def _choose_device(config: ModelConfig) -> str:
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        reason = "no NVIDIA GPU is found"
        if torch.version.cuda is None:
            reason = f"PyTorch {torch.__version__} is built without CUDA"
        raise ModelError(
            f"model.device is {config.device}, and {reason}: leave it at auto, or set it to cpu"
        )
    if config.device == "auto" and torch.cuda.is_available():
        return "cuda"
    if config.device == "auto":
        return "cpu"
    try:
        torch.empty(0, device=config.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # PyTorch's own words list twenty kinds of hardware.
        raise ModelError(
            f"model.device is {config.device}, which this PyTorch cannot compute on: leave it at "
            "auto, or set it to cpu, cuda, or one GPU as cuda:1"
        ) from error
    return config.device


def _choose_dtype(config: ModelConfig, device: str) -> torch.dtype:
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    # It halves the memory and the time there; many CPUs compute bfloat16 slower than float32.
    if device.startswith("cuda"):
        return torch.bfloat16
    return torch.float32


def _choose_bfloat16_products(config: ModelConfig, model: PreTrainedModel) -> bool:
    if model.dtype != torch.float32 or is_spread(model):
        return False
    if find_input_device(model).type != "cpu":
        return False
    if config.products == "auto":
        return has_bfloat16_products() and model.num_parameters() >= LEAST_PARAMETERS
    if config.products == "bfloat16" and not has_bfloat16_products():
        raise ModelError(
            "model.products is bfloat16, but this processor (or this PyTorch) has no such "
            "products: leave it at auto"
        )
    return config.products == "bfloat16"
