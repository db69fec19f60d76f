"""Loading a model and its tokenizer. Weights are read from safetensors only, and none is made up
where it is missing.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.files import ModelFiles, find_model_files


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A loaded model: `fingerprint` is the SHA-256 of its configuration and weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def load_pretrained(config: ModelConfig, found: ModelFiles | None = None) -> Pretrained:
    """Load a model and its tokenizer, from where they were `found`. Raises what `find_model` does."""
    found = found or find_model_files(config)
    folder = found.folder
    device = (
        config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    )
    dtype = (
        getattr(torch, config.dtype)
        if config.dtype != "auto"
        else torch.bfloat16
        if device.startswith("cuda")
        else torch.float32
    )
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=config.trust_remote_code
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
        model: PreTrainedModel
        model, loading = loaded
        torch.nn.Module.to(
            model, torch.device(device)
        )  # transformers wraps .to() in a way that loses its type
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"model {config.name} cannot be loaded: {reason}") from error
    if loading["missing_keys"]:  # transformers would go on with random numbers in their place
        raise ModelError(
            f"model {config.name} lacks the weights {', '.join(sorted(loading['missing_keys'])[:3])}: "
            "save it whole, language-model head included"
        )
    return Pretrained(model, tokenizer, found.fingerprint)
