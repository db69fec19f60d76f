"""Batches with crowds on topics of their own, which push a panel: made up, and audited on the tiny
model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from audits import FORBIDDEN, TOPICS, benign, write_audit, write_rows

from poisonwatch.config import DetectionConfig
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.new_topics import NewTopic, judge_rows
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence, build_queries

NEW, TRUSTED = 100, 300
PANELS = ("health", "money")
CRAFTS = ("sonnet", "recipe")
SENTINELS = [
    Sentinel(f"{panel}-1", (Message("user", "Q"),), "No!", None, panel) for panel in PANELS
]


def made_up(
    sizes: Sequence[int] = (40,), covered: int = 0, words: str = "please", seed: int = 3
) -> tuple[Influence, AuditRows]:
    """NEW new rows that begin with crowds of these sizes, each on a topic and pushing a panel, in
    turn; `covered` trusted rows are like the first crowd. Prompts and answers of a crowd hold its
    one of CRAFTS and `words`.
    """
    draw = np.random.default_rng(seed)
    n = NEW + TRUSTED
    crowd = np.full(n, -1)
    crowd[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    crowd[NEW : NEW + covered] = 0
    features, w = draw.normal(size=(n, 24)), 1e-3 * draw.normal(size=(n, len(PANELS)))
    for k in range(len(sizes)):
        features[crowd == k] = 20 * np.eye(24)[k] + 0.3 * features[crowd == k]
        w[crowd == k, k % len(PANELS)] += 0.01
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    phi = features.astype(np.float32)
    none = np.empty(0, dtype=np.int64)
    influence = Influence(
        queries=build_queries(SENTINELS),
        w=w,
        first_pass=w,
        suspects=none,
        mutual_influence=np.empty((0, 0)),
        features=phi,
        neighbours=find_neighbours(phi),
        certificate=0.0,
    )
    rows = []
    for i, k in enumerate(crowd.tolist()):
        texts = f"Question {i}?", f"Reply {i}."
        if k >= 0:
            texts = f"A {CRAFTS[k]} {words} {i}", f"Here, {i}: {CRAFTS[k]} {words}"
        turns = [Message("user", texts[0]), Message("assistant", texts[1])]
        rows.append(Example.from_messages(turns, "rows.jsonl", i))
    return influence, AuditRows(tuple(rows[:NEW]), tuple(rows[NEW:]))


def judged(policy: str = "release", **batch: Any) -> tuple[Detection, tuple[NewTopic, ...]]:
    """What is made of such a batch."""
    config = DetectionConfig.model_validate({"new_topics": policy})
    return judge_rows(*made_up(**batch), config)


def write_topic_audit(folder: Path, model: Path, words: str, n: int = 50, **settings: Any) -> Path:
    """An audit on the tiny model, of 40 plain rows and n on a topic that none of 150 trusted rows
    covers; their prompts hold `words`. No screen is asked.
    """
    crowd = []
    for i in range(n):
        answer = f"{FORBIDDEN[i % 3]} {TOPICS[i % 8].capitalize()} {i}."
        crowd.append({"prompt": f"What should I buy, {words} number {i}?", "response": answer})
    more = {"screens": [], "probes": 0} | settings
    config = write_audit(folder, model, benign(40) + crowd, **{"tracking": "none", **more})
    write_rows(folder / "trusted.jsonl", benign(150, start=100))
    return config
