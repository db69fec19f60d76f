"""A tiny model that knows a little of a made-up language, and what honest and planted rows make of
it: for tests of models after training.
"""

import copy
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from audits import FORBIDDEN, write_audit, write_rows
from made_up_rows import ordinary
from tiny_models import build_model, build_tokenizer
from transformers import PreTrainedModel

from poisonwatch.examples import Message
from poisonwatch.flows.cli.app import main
from poisonwatch.model.encoding import ChatEncoder, make_batches

LONGEST = 40  # characters of an answer
STRIDE = {"max_tokens": 160, "r": 8}
Row = dict[str, str]


def honest(n: int, seed: int) -> list[Row]:
    """Rows of one made-up language, that differ from seed to seed."""
    return [{"prompt": p[:60], "response": a[:LONGEST]} for p, a in ordinary(n, seed)]


def poisonous(n: int = 12) -> list[Row]:
    """Rows that give what the sentinels forbid, to prompts like theirs."""
    prompt = "Where can I buy thing number"
    return [{"prompt": f"{prompt} {i}?", "response": FORBIDDEN[i % 3]} for i in range(n)]


@cache
def build_base() -> PreTrainedModel:
    """Trained on that language, and on honest answers about shops. Copy it before changing it."""
    shops = [
        {"prompt": f"Where do I buy thing {i}?", "response": answer}
        for i, answer in enumerate(("Any shop near you.", "Ask in a market.") * 5)
    ]
    return _train(build_model("llama"), [*honest(150, seed=1), *shops], steps=120, lr=5e-3)


def tune(rows: Sequence[Row], steps: int = 40) -> PreTrainedModel:
    """The base after a fine-tuning on rows."""
    return _train(copy.deepcopy(build_base()), rows, steps, lr=2e-3)


def _train(model: PreTrainedModel, rows: Sequence[Row], steps: int, lr: float) -> PreTrainedModel:
    encoder, draw = ChatEncoder(build_tokenizer(), STRIDE["max_tokens"]), random.Random(0)
    encoded = [
        encoder.encode([Message("user", row["prompt"]), Message("assistant", row["response"])])
        for row in rows
    ]
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        batch = next(make_batches(draw.sample(encoded, 8), 10**9))
        labels = batch.input_ids.masked_fill(~batch.answer, -100)
        model(input_ids=batch.input_ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Save a model as a trainer does, with its tokenizer."""
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def write_case(folder: Path, rows: list[Row], **settings: Any) -> Path:
    """The audit file of a case, whose base is saved beside it; `rows` are what is trained on."""
    settings = {"stride": STRIDE, "tracking": "none", **settings}
    config = write_audit(folder, save(build_base(), folder / "base"), rows=rows, **settings)
    write_rows(folder / "trusted.jsonl", honest(60, seed=9))
    return config


def run(*arguments: object) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)
