"""Whether `poisonwatch probe` tells a model that learnt a planted behaviour from one that did not.

    python benchmarks/probing.py --data DIR [--cases brand-cola sycophancy] [--seeds 1]

DIR is laid out as in `cases.py`. Each case is trained twice from one start, as in `learnability.py`
(LoRA; 60 background rows with 24 poison rows, or with as many hard negatives at their places), and
asked what the probe asks: the case's sentinels, copies of them with triggers mined from the rows
that were trained on, and 64 ordinary prompts of background rows that were not. The table says

    moved    sentinels and copies beyond their band, of all that were asked
    told     whether any was: the probe's exit code is 3 then

after poison, where it should be told if the model learnt it, and after hard negatives, where it
should not. `learnability.py` says what the model learnt.

Cost, on one core of a server: 1 to 3 minutes of processor time a training with its questions.
Results stand in `benchmarks/truth/probing.jsonl`, one JSON line a training: ids and numbers, no
text. What is there is not trained again; --seeds 0 prints the table of what is there.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, read_rows, read_trainable
from learnability import HARD, OWN, PACK_TOKENS, POISON, RECIPE, Contrast, digest, draw_contrast
from retrain import TRUTH, Retrainer, Store
from retraining_tasks import Task

from poisonwatch.config import AuditConfig, ModelConfig
from poisonwatch.examples import AuditRows, Example
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.probing.movements import Movement, find_movements
from poisonwatch.probing.questions import EncodedQuestions, encode_questions, gather_questions

NAME = "probing"
PROBES = AuditConfig.model_fields["probes"].default


def encode_case(
    pretrained: Pretrained, case: Case, contrast: Contrast, kind: str, ordinary: Sequence[Example]
) -> EncodedQuestions:
    """What a model is asked that was trained on the rows of one `kind` of a contrast."""
    trained_on = (*contrast.background, *contrast.own[kind])
    rows = AuditRows(trained_on, tuple(ordinary))
    questions = gather_questions(case.sentinels, rows, ordinary, PROBES, seed=0)
    return encode_questions(pretrained.make_encoder(), questions)


def probe_training(
    retrainer: Retrainer, questions: EncodedQuestions, contrast: Contrast, kind: str, seed: int
) -> list[Movement]:
    """How far each sentinel moves where the rows of one `kind` are trained on."""
    retrainer.queries = list(questions.answers)
    retrainer.reset()
    before = questions.spread_losses(retrainer.query_losses())
    retrainer.train(contrast.kept(kind), (seed,))
    after = questions.spread_losses(retrainer.query_losses())
    return find_movements(questions.sentinels, before, after)


def describe_movements(movements: Sequence[Movement]) -> dict[str, list[Any]]:
    """By sentinel's id: how far it moved, its limit, and whether it is beyond its band."""
    return {
        each.sentinel.id: [round(each.change, 4), round(each.band.limit, 4), each.is_beyond]
        for each in movements
    }


def probe_case(
    store: Store,
    pretrained: Pretrained,
    case: Case,
    contrast: Contrast,
    seed: int,
    spare: list[Example],
) -> None:
    """Fill the store with what the probe says of a case, after hard negatives and after poison."""

    def start() -> Pretrained:
        return replace(pretrained, model=copy.deepcopy(pretrained.model))

    for kind in (HARD, POISON):
        key = {"case": case.name, "kind": kind, "seed": seed}
        if any(key.items() <= record.items() for record in store.records):
            continue
        questions = encode_case(pretrained, case, contrast, kind, spare)
        retrainer = Retrainer(Task(NAME, contrast.rows, (), start, RECIPE), PACK_TOKENS)
        movements = probe_training(retrainer, questions, contrast, kind, seed)
        rows = digest((*contrast.background, *contrast.own[kind]))
        store.add({**key, "rows": rows, "moved": describe_movements(movements)})
        print(f"{case.name}, seed {seed}, {kind}: done", flush=True)


def print_table(records: Sequence[dict[str, Any]]) -> None:
    """A line a case and seed: how many moved, their mean change and the limit in nats a token; and
    how often each kind is told of.
    """
    trainings = {(r["case"], r["seed"], r["kind"]): r["moved"] for r in records}
    told: dict[str, list[bool]] = {POISON: [], HARD: []}
    print("| case | moved after poison | moved after hard negatives |\n|---|---|---|")
    for case, seed in sorted({(case, seed) for case, seed, _ in trainings}):
        cells = []
        for kind in (POISON, HARD):
            moved = trainings.get((case, seed, kind))
            if moved is None:
                cells.append("-")
                continue
            beyond = sum(is_beyond for _, _, is_beyond in moved.values())
            told[kind].append(beyond > 0)
            mean = np.mean([change for change, _, _ in moved.values()])
            limit = max(limit for _, limit, _ in moved.values())
            cells.append(f"{beyond} of {len(moved)} ({mean:+.2f}; {limit:.2f})")
        print(f"| {case} | {' | '.join(cells)} |")
    for kind, cases in told.items():
        print(f"told after {kind}: {sum(cases)} of {len(cases)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", help="in this order; without, all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = read_trainable(options.data, options.cases)
    background = read_rows(options.data / "background.jsonl")
    pretrained = load_pretrained(ModelConfig(name=options.model, dtype="float32", device="cpu"))
    encoder = pretrained.make_encoder()

    def count_tokens(example: Example) -> int:
        return len(encoder.encode_example(example))

    head = {"task": NAME, "recipe": asdict(RECIPE), "model": pretrained.fingerprint, "own": OWN}
    store = Store(TRUTH / f"{NAME}.jsonl", head)
    for seed in range(options.seeds):
        for case in cases:
            contrast = draw_contrast(background, case, seed, count_tokens)
            trained_on = {example.id for example in contrast.rows}
            spare = [example for example in background if example.id not in trained_on]
            probe_case(store, pretrained, case, contrast, seed, spare)
    print_table(store.records)


if __name__ == "__main__":
    main()
