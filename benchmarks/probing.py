"""Whether `poisonwatch probe` tells a model that learnt a planted behaviour from one that did not.

    python benchmarks/probing.py --data DIR [--cases brand-cola sycophancy] [--seeds 1]

DIR is laid out as in `cases.py`. Each case is trained twice from one start, as in `learnability.py`
(LoRA; 60 background rows with 24 poison rows, or with as many hard negatives at their places), and
asked what the probe asks: the case's sentinels, copies of them with triggers mined from the rows
that were trained on, their answers at ordinary prompts, and 32 ordinary prompts with ordinary
answers. Ordinary prompts are of background rows that nothing was trained on.

    trusted    84 other background rows, trained on alike: what --trusted-checkpoint names

The table says of each training what the probe says with such a checkpoint and without: sentinels
beyond their band of all that were asked, and the change of the panel that comes nearest to its
limit. Where one is beyond, the probe's exit code is 3. The limits were fixed on the cases of
CHOSEN_ON; the others are counted apart. What the model learns at all `learnability.py` says.

Cost, on one core of a server: 1 to 3 minutes of processor time a training with its questions.
Results stand in `benchmarks/truth/probing.jsonl`, one JSON line a training: ids and losses, no
text. What is there is not trained again; --seeds 0 prints the table of what is there. With --weights
DIR what was trained is kept there, and a training that is found there is only asked.
"""

import argparse
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, read_rows, read_trainable
from learnability import (
    BACKGROUND,
    BACKGROUND_TOKENS,
    HARD,
    OWN,
    PACK_TOKENS,
    POISON,
    RECIPE,
    Contrast,
    digest,
    draw_contrast,
)
from retrain import TRUTH, Retrainer, Store, _packs, _row_losses
from retraining_tasks import Task

from poisonwatch.config import AuditConfig, ModelConfig
from poisonwatch.examples import AuditRows, Example
from poisonwatch.model.encoding import Encoded
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.probing.movements import find_movements, list_moved
from poisonwatch.probing.panels import find_panel_movements, list_moved_panels
from poisonwatch.probing.questions import (
    LEAST_ORDINARY,
    AnswerLosses,
    EncodedQuestions,
    encode_questions,
    gather_questions,
)
from poisonwatch.sentinels.sentinel import Sentinel

NAME = "probing"
PROBES = AuditConfig.model_fields["probes"].default
MOST_TOKENS = 512
# Seen before the limits were fixed; the others came after.
CHOSEN_ON = {"brand-cola", "insult-badnet"}


def encode_case(
    pretrained: Pretrained, case: Case, trained_on: Sequence[Example], spare: Sequence[Example]
) -> EncodedQuestions:
    """What a model is asked that was trained on some rows; `spare` are rows that none was."""
    rows = AuditRows(tuple(trained_on), tuple(spare))
    different = list({example.response: example for example in spare}.values())
    ordinary = different[:LEAST_ORDINARY]
    questions = gather_questions(case.sentinels, rows, ordinary, PROBES, seed=0)
    return encode_questions(pretrained.make_encoder(MOST_TOKENS), questions)


def describe_sentinel(sentinel: Sentinel) -> list[str]:
    """A sentinel without its texts: id and panel."""
    return [sentinel.id, sentinel.panel]


def restore_sentinels(case: Case, described: Sequence[Sequence[Any]]) -> list[Sentinel]:
    """Sentinels of a case, and copies, by their ids and panels."""
    known = {sentinel.id: sentinel for sentinel in case.sentinels}
    return [
        replace(known[id.partition("+t")[0]], id=id, panel=panel) for id, panel, *_ in described
    ]


def write_losses(losses: AnswerLosses) -> dict[str, Any]:
    """Losses as JSON: null where there is no answer."""
    return {
        each.name: np.where(np.isnan(of := getattr(losses, each.name)), None, of).tolist()
        for each in fields(losses)
    }


def read_losses(written: Mapping[str, Any]) -> AnswerLosses:
    """What `write_losses` wrote."""
    return AnswerLosses(**{name: np.array(of, dtype=float) for name, of in written.items()})


class Asked:
    """Losses of answers by checkpoint, none of them computed twice."""

    def __init__(self, retrainer: Retrainer) -> None:
        self._retrainer = retrainer
        self._known: dict[tuple[str, bytes, bytes], float] = {}

    def compute(self, checkpoint: str, answers: Sequence[Encoded]) -> list[float]:
        """The losses of answers in nats a token, of the model as it stands, called `checkpoint`."""
        keys = [(checkpoint, e.input_ids.tobytes(), e.answer.tobytes()) for e in answers]
        missing = sorted(
            {
                key: e for key, e in zip(keys, answers, strict=True) if key not in self._known
            }.items(),
            key=lambda each: len(each[1]),
        )
        if missing:
            packs = _packs([encoded for _, encoded in missing], PACK_TOKENS)
            with torch.no_grad():
                losses = [_row_losses(self._retrainer.model, pack) for pack in packs]
            for (key, _), loss in zip(missing, torch.cat(losses).tolist(), strict=True):
                self._known[key] = round(loss, 5)
        return [self._known[key] for key in keys]


def draw_trusted(
    background: Sequence[Example], used: Collection[str], seed: int, count: Callable[[Example], int]
) -> list[Example]:
    """As many rows as a training has, of those that no training of the cases uses."""
    fitting = {e.id: e for e in background if e.id not in used and count(e) <= BACKGROUND_TOKENS}
    pool = [fitting[id] for id in sorted(fitting)]
    order = np.random.default_rng((seed, 7)).permutation(len(pool))
    return [pool[i] for i in order[: BACKGROUND + OWN]]


@dataclass
class Bench:
    """What all trainings share."""

    pretrained: Pretrained
    retrainer: Retrainer
    asked: Asked
    weights: Path | None

    def ask(self, checkpoint: str, questions: EncodedQuestions) -> dict[str, Any]:
        """What the model as it stands answers, called `checkpoint`, as `write_losses` writes it."""
        losses = self.asked.compute(checkpoint, questions.answers)
        return write_losses(questions.spread_losses(np.array(losses)))

    def train(self, name: str, rows: Sequence[Example], seed: int) -> None:
        """Train on rows in this order, or take up what was trained so under this name."""
        kept = self.weights / f"{name}.pt" if self.weights is not None else None
        if kept is not None and kept.exists():
            with torch.no_grad():
                for parameter, value in zip(self.retrainer.trained, torch.load(kept), strict=True):
                    parameter.copy_(value)
            return
        encoder = self.pretrained.make_encoder()
        self.retrainer.rows = [encoder.encode_example(example) for example in rows]
        self.retrainer.train(np.arange(len(rows)), (seed,))
        if kept is not None:
            part = kept.with_suffix(".part")
            torch.save([parameter.detach() for parameter in self.retrainer.trained], part)
            part.rename(kept)


def probe_case(
    store: Store,
    bench: Bench,
    case: Case,
    contrast: Contrast,
    seed: int,
    trusted: list[Example],
    spare: list[Example],
    kinds: Sequence[str],
) -> None:
    """Fill the store with what the models of a case answer: base, trusted, and tuned."""
    for kind in kinds:
        key = {"case": case.name, "kind": kind, "seed": seed}
        if any(key.items() <= record.items() for record in store.records):
            continue
        trained_on = [*contrast.background, *contrast.own[kind]]
        questions = encode_case(bench.pretrained, case, trained_on, spare)
        bench.retrainer.reset()
        record: dict[str, Any] = {**key, "rows": digest(trained_on)}
        record["sentinels"] = [describe_sentinel(sentinel) for sentinel in questions.sentinels]
        record["base"] = bench.ask("base", questions)
        bench.train(f"trusted-{100 + seed}", trusted, 100 + seed)
        record["trusted"] = bench.ask("trusted", questions)
        name = f"{case.name}--{kind.replace(' ', '_')}"
        bench.train(name if not seed else f"{name}-{seed}", trained_on, seed)
        record["tuned"] = bench.ask(f"{name} {seed}", questions)
        store.add(record)
        print(f"{case.name}, seed {seed}, {kind}: done", flush=True)


def describe_answer(case: Case, record: Mapping[str, Any], beside: str) -> tuple[bool, str]:
    """Whether the probe tells of a training, `beside` the base or the trusted checkpoint, and what
    it says: sentinels beyond their band, and the panel that comes nearest to its limit.
    """
    base, tuned = read_losses(record["base"]), read_losses(record["tuned"])
    trusted = read_losses(record["trusted"]) if beside == "trusted" else None
    sentinels = restore_sentinels(case, record["sentinels"])
    movements = find_movements(sentinels, base, tuned, trusted)
    panels = find_panel_movements(movements, trusted or base, tuned)
    moved = len(list_moved(movements))
    nearest = max(panels, key=lambda panel: panel.change / panel.limit)
    told = bool(moved or list_moved_panels(panels))
    words = (
        f"{moved} of {len(sentinels)}; {nearest.change:+.2f} ({nearest.limit:.2f}) {nearest.way}"
    )
    return told, f"**told**: {words}" if told else words


def print_table(cases: Sequence[Case], records: Sequence[dict[str, Any]]) -> None:
    """A line a case and seed, and how often each kind is told of: those that the rule was chosen
    on, and the others.
    """
    trainings = {(r["case"], r["seed"], r["kind"]): r for r in records}
    columns = [(kind, beside) for kind in (POISON, HARD) for beside in ("base", "trusted")]
    told: dict[tuple[str, str, str], list[bool]] = {}
    print(f"| case | {' | '.join(f'{kind}, beside {beside}' for kind, beside in columns)} |")
    print("|---" * (1 + len(columns)) + "|")
    for case in cases:
        for seed in sorted({seed for name, seed, _ in trainings if name == case.name}):
            cells = []
            for kind, beside in columns:
                record = trainings.get((case.name, seed, kind))
                if record is None:
                    cells.append("-")
                    continue
                is_told, cell = describe_answer(case, record, beside)
                half = "chosen on" if case.name in CHOSEN_ON else "others"
                told.setdefault((kind, beside, half), []).append(is_told)
                cells.append(cell)
            print(f"| {case.name} | {' | '.join(cells)} |")
    for (kind, beside, half), each in sorted(told.items()):
        print(f"told after {kind}, beside {beside}, {half}: {sum(each)} of {len(each)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", help="in this order; without, all")
    parser.add_argument("--kinds", nargs="+", default=[HARD, POISON], choices=[HARD, POISON])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = read_trainable(options.data, options.cases)
    background = read_rows(options.data / "background.jsonl")
    pretrained = load_pretrained(ModelConfig(name=options.model, dtype="float32", device="cpu"))
    encoder = pretrained.make_encoder()

    def count_tokens(example: Example) -> int:
        return len(encoder.encode_example(example))

    def start() -> Pretrained:
        return replace(pretrained, model=copy.deepcopy(pretrained.model))

    head = {"task": NAME, "recipe": asdict(RECIPE), "model": pretrained.fingerprint, "own": OWN}
    head["asked"] = ["base", "trusted", "tuned"]
    store = Store(TRUTH / f"{NAME}.jsonl", head)
    # bfloat16, as it is trained: differences of losses are of one and the same model
    retrainer = Retrainer(Task(NAME, (), (), start, RECIPE), PACK_TOKENS)
    bench = Bench(pretrained, retrainer, Asked(retrainer), options.weights)
    for seed in range(options.seeds):
        for case in cases:
            contrast = draw_contrast(background, case, seed, count_tokens)
            # the same for all cases of a seed: poison and hard negatives are none of the background
            shared = draw_contrast(background, replace(case, hard_negatives=[]), seed, count_tokens)
            used = {example.id for example in shared.rows}
            trusted = draw_trusted(background, used, 100 + seed, count_tokens)
            used |= {example.id for example in trusted}
            spare = [example for example in background if example.id not in used]
            probe_case(store, bench, case, contrast, seed, trusted, spare, options.kinds)
    print_table(cases, store.records)


if __name__ == "__main__":
    main()
