"""A tuned checkpoint beside the audit's model: where it is, and whether the two can be compared."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.model.adapter import holds_adapter
from poisonwatch.model.files import TOKENIZER_FILES, ModelFiles, name_model
from poisonwatch.model.pretrained import LOAD_ERRORS
from poisonwatch.probing.questions import EncodedQuestions
from poisonwatch.text.display import get_first_line


def name_checkpoint(config: ModelConfig, model: str | None, adapter: str | None) -> ModelConfig:
    """The settings of a tuned checkpoint of the model of `config`: a `model` (folder or hub id), an
    `adapter` of it, or of the audit's own model where no other is named. One of both is named.
    """
    if model is None:
        return config.model_copy(update={"adapter": adapter, "adapter_revision": None})
    if adapter is None and holds_adapter(Path(model)) and config.adapter is None:
        # Trained on the audit's model, whatever that was called on the trainer's machine.
        return config.model_copy(update={"adapter": model, "adapter_revision": None})
    update = {"revision": None, "adapter": adapter, "adapter_revision": None}
    return name_model(config, model).model_copy(update=update)


def require_tokenizer(tuned: ModelFiles) -> None:
    """Raise ModelError where a checkpoint has no tokenizer: trainers that were given none save
    none.
    """
    if not any((tuned.tokenizer / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"the checkpoint {tuned.tokenizer} has no tokenizer: copy the one that training used "
            "into it (tokenizer.save_pretrained)"
        )


def refuse_other_family(config: ModelConfig, base: ModelFiles, tuned: ModelFiles) -> None:
    """Raise ModelError where the checkpoint is of another family, or another size, than the audit's
    model: no weights are read.
    """
    expected, found = (_describe_family(config, files) for files in (base, tuned))
    if found != expected:
        raise ModelError(
            f"the checkpoint is {found}, and the audit's model {expected}: name a checkpoint that "
            "was trained from it, or the base as `model` of the audit file"
        )


def _describe_family(config: ModelConfig, files: ModelFiles) -> str:
    try:
        found: Any = AutoConfig.from_pretrained(
            files.folder, trust_remote_code=config.trust_remote_code
        )
    except LOAD_ERRORS as error:
        raise ModelError(
            f"{files.folder} cannot be read as a model: {get_first_line(error)}"
        ) from error
    text = found.get_text_config()
    return f"{found.model_type} ({text.num_hidden_layers} blocks, {text.hidden_size} wide)"


def refuse_other_tokens(base: EncodedQuestions, tuned: EncodedQuestions) -> None:
    """Raise ModelError where the two models are given other tokens for one question: losses of
    other tokens say nothing about each other.
    """
    for expected, found in zip(base.answers, tuned.answers, strict=False):
        if not np.array_equal(expected.input_ids, found.input_ids):
            raise ModelError(
                "the checkpoint's tokenizer or chat template is not that of the audit's model: "
                "they give the sentinels other tokens; save the base's with the checkpoint, or "
                "name the template that training used as model.chat_template of the audit file"
            )
