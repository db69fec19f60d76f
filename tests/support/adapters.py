"""Adapters trained by nobody: real peft adapters of tiny models, with random weights."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

IDS = torch.arange(24)[None]
RANK = 4
# How far a random adapter moves weights: enough for every logit to differ.
SCALE = 0.05


def lora(**settings: Any) -> LoraConfig:
    """A LoRA of rank 4 on the attention's queries and values, unless settings say otherwise."""
    chosen = {"r": RANK, "lora_alpha": 8, "task_type": "CAUSAL_LM"}
    # peft changes lists that it is given.
    chosen |= {"target_modules": ["q_proj", "v_proj"], **copy.deepcopy(settings)}
    return LoraConfig(**chosen)


def save_adapter(
    base: PreTrainedModel,
    folder: Path,
    config: PeftConfig | None = None,
    *,
    named: Path | str | None = None,
    vocabulary: int | None = None,
    seed: int = 1,
) -> Tensor:
    """Save a random adapter of a copy of `base`, `named` as it is to be found again, with a
    vocabulary of its own if one is given; returns the logits (1, 24, V) that peft computes with
    the adapter beside the base's weights.
    """
    base = copy.deepcopy(base)
    if vocabulary is not None:
        base.resize_token_embeddings(vocabulary, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config or lora())
        _move_at_random(model, seed)
        model.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["base_model_name_or_path"] = None if named is None else str(named)
    path.write_text(json.dumps(settings))
    return compute_logits(model.eval())


def _move_at_random(model: PeftModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(SCALE * noise)


def compute_logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=IDS).logits
    return logits
