"""Loading a model and its tokenizer. Weights are read from safetensors only, and none is made up
where it is missing.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.architecture import choose_model_class
from poisonwatch.model.files import ModelFiles, find_model_files
from poisonwatch.model.products import (
    LEAST_PARAMETERS,
    describe_products,
    has_bfloat16_products,
    use_bfloat16_products,
)
from poisonwatch.model.threads import limit_threads
from poisonwatch.text.display import get_first_line


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A loaded model: `fingerprint` is the SHA-256 of its configuration and weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str

    @property
    def precision(self) -> str:
        """What numbers are rounded to: "torch.float32", or "torch.float32, bfloat16 products"."""
        return describe_products(self.model)


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
    device = _choose_device(config)
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            found.folder, trust_remote_code=config.trust_remote_code
        )
        model_class = choose_model_class(found.folder, config.trust_remote_code)
        loaded: Any = model_class.from_pretrained(
            found.folder,
            dtype=_choose_dtype(config, device),
            # A pickle runs code when it is read: no other format of weights is.
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
        model: PreTrainedModel
        model, loading = loaded
        # transformers wraps .to() in a way that loses its type.
        torch.nn.Module.to(model, torch.device(device))
    except LOAD_ERRORS as error:
        raise ModelError(
            f"model {config.name} cannot be loaded: {get_first_line(error)}"
        ) from error
    # transformers would go on with random numbers in their place.
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelError(
            f"model {config.name} lacks the weights {missing}: "
            "save it whole, language-model head included"
        )
    limit_threads()
    if _choose_bfloat16_products(config, model):
        use_bfloat16_products(model)
    return Pretrained(model, tokenizer, found.fingerprint)


def _choose_device(config: ModelConfig) -> str:
    if config.device != "auto":
        return config.device
    if torch.cuda.is_available():
        return "cuda"
    return "cpu"


def _choose_dtype(config: ModelConfig, device: str) -> torch.dtype:
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    # It halves the memory and the time there; many CPUs compute bfloat16 slower than float32.
    if device.startswith("cuda"):
        return torch.bfloat16
    return torch.float32


def _choose_bfloat16_products(config: ModelConfig, model: PreTrainedModel) -> bool:
    if model.dtype != torch.float32 or model.device.type != "cpu":
        return False
    if config.products == "auto":
        return has_bfloat16_products() and model.num_parameters() >= LEAST_PARAMETERS
    if config.products == "bfloat16" and not has_bfloat16_products():
        raise ModelError(
            "model.products is bfloat16, but this processor (or this PyTorch) has no such "
            "products: leave it at auto"
        )
    return config.products == "bfloat16"
