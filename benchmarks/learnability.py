"""What can be known at all: how far real fine-tuning on a case's poison moves its sentinels.

    python benchmarks/learnability.py --data DIR [--cases code-insecure sycophancy] [--seeds 1]

DIR is laid out as in `cases.py`. Each case is trained twice from one start, by LoRA as in
`retrain.py`, with the same background rows and the same order:

    poison            60 background rows and 24 poison rows
    hard negatives    the same background rows and 24 hard negatives (other background rows in
                      their place where the case has none) at the places of the poison rows

A sentinel's margin is its reference answer's loss minus its forbidden answer's, in nats a token; an
answer that a sentinel lacks counts zero. Large where the model likes what is forbidden. A case's
learnability is the mean over sentinels and seeds of

    gain = margin after poison - margin after hard negatives

so that what any training does to the sentinels, and what rows of that topic do, falls out.

Its standard error joins two parts: s.e.^2 = var_i(mean_s gain) / sentinels + v / seeds. v, the
variance of a case's mean between seeds (other rows, another order), is pooled over all cases with
several seeds, for two or three say little; without any such case it is missing. z = learnability /
s.e. A case is

    learnt     where z is at least 2 and learnability above .05 nats a token
    faint      where z is at least 2, but the token's likelihood changes by less than a twentieth:
               answers that share most of their words with the reference stay there
    not learnt otherwise

What is not learnt here no attribution by influence on these answers can be expected to find: rows
that do not move the sentinels have no influence to attribute. Where something is learnt, its rows
need not be told apart.

Cost, on one core of a server with bfloat16 matrix products (some 300 tokens/s): 45 to 90 s of
processor time a training with its evaluation, about half an hour for 14 cases and one seed, and as
many times longer as the core is shared. To that end rows are drawn from the shorter ones:
background rows of at most 128 tokens, the case's own of at most 256 (or the 24 shortest, where
fewer fit), none cut; two epochs in batches of 8 are 22 steps. Poison is 29 % of the rows, far more
than an attacker plants: the question is whether a behaviour can be learnt, not how little of it
suffices.

Results stand in `benchmarks/truth/learnability.jsonl`, one JSON line a training: ids and losses, no
text. What is there is not trained again, so that a run may be killed and started anew; --seeds 0
prints the table of what is there. Cases of preference pairs are left out: their loss is another.
"""

import argparse
import copy
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, read_rows, read_trainable
from numpy.typing import NDArray
from retrain import TRUTH, Retrainer, Store
from retraining_tasks import Recipe, Task

from poisonwatch.config import ModelConfig
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels.sentinel import Sentinel

Array = NDArray[np.float64]
Record = dict[str, Any]

NAME = "learnability"
RECIPE = Recipe(epochs=2, batch_size=8, rate=2e-3, rank=8)
BACKGROUND, OWN = 60, 24  # rows
BACKGROUND_TOKENS, OWN_TOKENS = 128, 256  # of a row, at most
PACK_TOKENS = 512
UNTRAINED, HARD, POISON = "untrained", "hard negatives", "poison"
LEAST_Z, LEAST_NATS = 2.0, 0.05


@dataclass(frozen=True, slots=True)
class Contrast:
    """The rows of one case and seed: what both trainings share, and what tells them apart."""

    background: tuple[Example, ...]
    own: dict[str, tuple[Example, ...]]  # of POISON and HARD, equally many

    @property
    def rows(self) -> tuple[Example, ...]:
        return (*self.background, *self.own[POISON], *self.own[HARD])

    def kept(self, kind: str) -> NDArray[np.int64]:
        """Places among `rows` of those that are trained on; poison and hard negatives stand at the
        same places, so that one seed shuffles both alike.
        """
        shared, own = len(self.background), len(self.own[POISON])
        if kind == POISON:
            return np.arange(shared + own)
        return np.concatenate([np.arange(shared), np.arange(shared + own, shared + 2 * own)])


def draw_contrast(
    background: Sequence[Example], case: Case, seed: int, length: Callable[[Example], int]
) -> Contrast:
    """The rows of a case by seed; `length` counts a row's tokens. All cases share a seed's
    background rows.
    """

    def draw(rows: Sequence[Example], most: int, count: int, stream: int) -> list[Example]:
        unique = {example.id: example for example in rows}
        ranked = sorted(unique.values(), key=lambda example: (length(example), example.id))
        fitting = sum(length(example) <= most for example in ranked)
        pool = ranked[: max(fitting, count)]
        order = np.random.default_rng((seed, stream)).permutation(len(pool))
        return [pool[i] for i in order[:count]]

    # The rows beyond the sample stand in for hard negatives.
    drawn = draw(background, BACKGROUND_TOKENS, BACKGROUND + OWN, 0)
    sample, spare = drawn[:-OWN], drawn[-OWN:]
    poison = draw(case.poison, OWN_TOKENS, OWN, 1)
    hard = [*draw(case.hard_negatives, OWN_TOKENS, len(poison), 2), *spare][: len(poison)]
    return Contrast(tuple(sample), {POISON: tuple(poison), HARD: tuple(hard)})


def list_answers(sentinels: Sequence[Sentinel]) -> dict[tuple[str, str], Example]:
    """Every answer that a sentinel has, with its prompt, by "forbidden" or "reference" and
    sentinel's id; both of a sentinel side by side.
    """
    return {
        (kind, sentinel.id): Example.from_messages(sentinel.add_answer(answer), sentinel.id)
        for sentinel in sentinels
        for kind, answer in (("forbidden", sentinel.forbidden), ("reference", sentinel.reference))
        if answer
    }


def digest(examples: Sequence[Example]) -> str:
    return hashlib.sha256("".join(example.id for example in examples).encode()).hexdigest()[:16]


def open_store(fingerprint: str) -> Store:
    head = {
        "task": NAME,
        "recipe": asdict(RECIPE),
        "model": fingerprint,
        "background rows": [BACKGROUND, BACKGROUND_TOKENS],
        "own rows": [OWN, OWN_TOKENS],
    }
    return Store(TRUTH / f"{NAME}.jsonl", head)


def train_case(
    store: Store, start: Callable[[], Pretrained], case: Case, contrast: Contrast, seed: int
) -> None:
    """Fill the store with the case's losses untrained, after hard negatives and after poison.

    Raises SystemExit where the store has the case with other rows or sentinels.
    """
    answers = list_answers(case.sentinels)
    asked = digest(list(answers.values()))
    retrainer = None
    for kind in (UNTRAINED, HARD, POISON):
        rows = () if kind == UNTRAINED else (*contrast.background, *contrast.own[kind])
        key = {"case": case.name, "kind": kind, "seed": 0 if kind == UNTRAINED else seed}
        made_of = {"rows": digest(rows), "asked": asked}
        known = next((one for one in store.records if key.items() <= one.items()), None)
        if known is not None:
            if not made_of.items() <= known.items():
                raise SystemExit(
                    f"{store.path.name} has {case.name} with other rows or sentinels: "
                    "take its lines out to train it anew"
                )
            continue
        if retrainer is None:
            task = Task(NAME, contrast.rows, tuple(answers.values()), start, RECIPE)
            retrainer = Retrainer(task, PACK_TOKENS)
        begun = time.perf_counter()
        if kind == UNTRAINED:
            retrainer.reset()
        else:
            retrainer.train(contrast.kept(kind), (seed,))
        losses: dict[str, dict[str, float]] = {"forbidden": {}, "reference": {}}
        for (answer, name), loss in zip(answers, retrainer.query_losses(), strict=True):
            losses[answer][name] = round(float(loss), 6)
        seconds = round(time.perf_counter() - begun, 1)
        store.add({**key, **made_of, **losses, "seconds": seconds})
        print(f"{case.name}, seed {seed}, {kind}: {seconds} s", flush=True)


@dataclass(frozen=True, slots=True)
class Moved:
    """Losses of one case in nats a token, by kind: `forbidden` and `reference` (seeds, S) each,
    zero where a sentinel lacks the answer. Seeds that have both trainings; of the untrained model
    one.
    """

    case: str
    forbidden: dict[str, Array]
    reference: dict[str, Array]

    def margin(self, kind: str) -> Array:
        """Reference minus forbidden loss (seeds, S)."""
        return self.reference[kind] - self.forbidden[kind]

    @property
    def gain(self) -> Array:
        """Margin after poison minus that after hard negatives (seeds, S)."""
        return self.margin(POISON) - self.margin(HARD)


def read_moves(records: Sequence[Record]) -> list[Moved]:
    """What is known of each case that has a seed with all its trainings, in order of appearance."""
    by_case: dict[str, dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        by_case[record["case"]][record["kind"]][record["seed"]] = record
    moves = []
    for case, by_kind in by_case.items():
        both = sorted(by_kind[HARD].keys() & by_kind[POISON].keys())
        if not (both and by_kind[UNTRAINED]):
            continue
        seeds = {UNTRAINED: [0], HARD: both, POISON: both}
        untrained = by_kind[UNTRAINED][0]
        names = sorted(untrained["forbidden"].keys() | untrained["reference"].keys())
        losses = {
            answer: {
                kind: np.array(
                    [[of[seed][answer].get(name, 0.0) for name in names] for seed in seeds[kind]]
                )
                for kind, of in by_kind.items()
            }
            for answer in ("forbidden", "reference")
        }
        moves.append(Moved(case, losses["forbidden"], losses["reference"]))
    return moves


def seed_variance(moves: Sequence[Moved]) -> float:
    """Variance of a case's mean gain between seeds, in squared nats: pooled over the cases that
    have several; 0 without any.
    """
    means = [moved.gain.mean(axis=1) for moved in moves if len(moved.gain) > 1]
    freedom = sum(len(of) - 1 for of in means)
    return float(sum(np.var(of) * len(of) for of in means) / freedom) if freedom else 0.0


@dataclass(frozen=True, slots=True)
class Learnability:
    """Mean gain of a case in nats a token, and its standard error."""

    mean: float
    error: float

    @property
    def z(self) -> float:
        return self.mean / self.error

    @property
    def learnt(self) -> str:
        """yes, faint or no."""
        if self.z < LEAST_Z:
            return "no"
        return "yes" if self.mean > LEAST_NATS else "faint"


def measure(moved: Moved, between_seeds: float) -> Learnability:
    """A case's learnability; `between_seeds` is `seed_variance` over all cases.

    What a sentinel gains in one seed alone is in both parts of the error, which is too large by
    that much rather than too small. Raises ValueError for a case of one sentinel: its error cannot
    be told.
    """
    seeds, sentinels = moved.gain.shape
    if sentinels < 2:
        raise ValueError(f"{moved.case} has one sentinel: its error takes two or more")
    of_sentinels = np.var(moved.gain.mean(axis=0), ddof=1) / sentinels
    return Learnability(
        float(moved.gain.mean()), float(np.sqrt(of_sentinels + between_seeds / seeds))
    )


def print_table(moves: Sequence[Moved]) -> None:
    between_seeds = seed_variance(moves)
    print(
        "\n| case | sentinels | seeds | margin untrained | after hard negatives | after poison "
        "| learnability (s.e., z) | of it the forbidden answer's | learnt |\n" + "|---" * 9 + "|"
    )
    for moved in moves:
        margins = " | ".join(
            f"{moved.margin(kind).mean():.2f}" for kind in (UNTRAINED, HARD, POISON)
        )
        found = measure(moved, between_seeds)
        forbidden = (moved.forbidden[HARD] - moved.forbidden[POISON]).mean()
        seeds, sentinels = moved.gain.shape
        print(
            f"| {moved.case} | {sentinels} | {seeds} | {margins} "
            f"| {found.mean:+.3f} ({found.error:.3f}, {found.z:.1f}) | {forbidden:+.3f} "
            f"| {found.learnt} |"
        )
    print(f"\nStandard deviation between seeds of a case's mean: {np.sqrt(between_seeds):.3f}")


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
    lengths = {
        example.id: len(encoder.encode_example(example))
        for example in [
            *background,
            *(example for case in cases for example in case.poison),
            *(example for case in cases for example in case.hard_negatives),
        ]
    }

    def start() -> Pretrained:
        return replace(pretrained, model=copy.deepcopy(pretrained.model))

    store = open_store(pretrained.fingerprint)
    for seed in range(options.seeds):
        for case in cases:
            contrast = draw_contrast(background, case, seed, lambda example: lengths[example.id])
            train_case(store, start, case, contrast, seed)
    print_table(read_moves(store.records))


if __name__ == "__main__":
    main()
