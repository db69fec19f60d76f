"""Losses of answers on a model as it stands, which may be at training: nothing of it is changed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from poisonwatch.arrays import Array
from poisonwatch.model.devices import find_input_device
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.halving import compute_batches


@contextmanager
def evaluate(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and without a graph, inside a `with`. Afterwards every module is in the mode
    that it was in, and random numbers go on where they were.
    """
    training = [module for module in model.modules() if module.training]
    device = find_input_device(model)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def compute_answer_losses(
    model: PreTrainedModel, answers: Sequence[Encoded], token_budget: int
) -> Array:
    """The mean losses (A,) of the answers' tokens in nats a token; each has at least one. NaN or
    infinite where the model says no numbers.
    """
    losses = np.empty(len(answers))
    by_parts = compute_batches(lambda batch: _run(model, batch))
    with evaluate(model):
        for batch in make_batches(answers, token_budget, find_input_device(model)):
            for part, found in by_parts(batch):
                losses[part.rows.numpy()] = found
    return losses


def _run(model: PreTrainedModel, batch: Batch) -> Array:
    # No mask: padding is on the right, where no token of a causal model looks.
    logits: Tensor = model(input_ids=batch.input_ids, use_cache=False).logits
    answers = batch.locate_answers()
    said = logits.flatten(0, 1).index_select(0, answers.at.to(logits.device))
    targets = batch.input_ids.flatten().index_select(0, answers.at + 1).to(logits.device)
    token_loss = cross_entropy(said.float(), targets, reduction="none")
    each = token_loss.split_with_sizes(list(answers.counts))
    found: Array = torch.stack([loss.mean() for loss in each]).double().cpu().numpy()
    return found
