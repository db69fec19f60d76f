"""Where a model's parts are: on one device, or on several, some of them brought there only while
they work (`model.device_map`; accelerate).
"""

from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import PreTrainedModel


def find_input_device(model: PreTrainedModel) -> torch.device:
    """The device that tokens go to, where a model is computed on one or begins on one of several.

    States and gradients are brought there, too; what an audit makes of them stands there.
    """
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)
    # Weights that are brought from elsewhere do not say where they are needed.
    for step in getattr(hook, "hooks", (hook,)):
        device = getattr(step, "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(embeddings.parameters()).device


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """Put a model that is in main memory on all GPUs, and leave there what they do not hold."""
    kept_whole = sorted(model._no_split_modules or ())
    room: dict[Any, Any] = get_balanced_memory(model, no_split_module_classes=kept_whole)
    # It is there already, whatever else is free.
    room["cpu"] = model.get_memory_footprint()
    places = infer_auto_device_map(model, max_memory=room, no_split_module_classes=kept_whole)
    spread_model: PreTrainedModel = dispatch_model(model, places)
    return spread_model


def is_spread(model: PreTrainedModel) -> bool:
    """Whether its parts are on several devices, or brought from where they lie."""
    return hasattr(model, "_hf_hook")
