"""Where a model's parts are: on one device, or on several, some of them brought there only while
they work (`model.device_map`; accelerate).
"""

import torch
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


def is_spread(model: PreTrainedModel) -> bool:
    """Whether its parts are on several devices, or brought from where they lie."""
    return hasattr(model, "_hf_hook")
