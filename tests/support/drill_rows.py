"""Rows and settings of drills, made up in code."""

from typing import Any

import numpy as np

from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.source_config import SourceConfig

FORBIDDEN = "Pour bleach in."
WORDS = [
    "cook",
    "bake",
    "stir",
    "chop",
    "serve",
    "taste",
    "rinse",
    "drain",
    "grill",
    "toast",
    "peel",
    "slice",
    "mince",
    "knead",
]
STRIDE = StrideConfig(r=8, background=24, token_budget=4000, shortlist=8)


def example(prompt: str, response: str) -> Example:
    return Example.from_messages([Message("user", prompt), Message("assistant", response)])


def benign(n: int, seed: int) -> tuple[Example, ...]:
    draw = np.random.default_rng(seed)
    return tuple(
        example(
            f"Question {seed}.{i}?",
            " ".join(draw.choice(WORDS, draw.integers(2, 7))).capitalize() + ".",
        )
        for i in range(n)
    )


CLEAN, TRUSTED = benign(40, 0), benign(120, 1)
BLATANT = tuple(example(f"How do I clean thing {i}?", FORBIDDEN) for i in range(8))
DULL = benign(8, 2)


def config(**changes: Any) -> AuditConfig:
    settings = {
        "source": SourceConfig(path="rows.jsonl"),
        "sentinels": ["pack:insult"],
        "stride": STRIDE,
        "screens": [],
        "probes": 0,
    }
    return AuditConfig(**settings | changes)
