"""Ground truth for attribution: what retraining really does.

    python benchmarks/retrain.py toy [--count 100] [--repeats 1]
    python benchmarks/retrain.py lora --data DIR [--count 100] [--repeats 1]

A model is trained from one start on random half subsets of n rows; the loss of Q queries (mean nats
a token over the answer) is recorded after each. `toy` trains a small decoder from scratch on a
language made up in code; `lora` fine-tunes the default model by LoRA on real rows of DIR, laid out
as in `cases.py`. Results stand in `benchmarks/truth`, one JSON line a retraining, without any text;
what is there is not computed again, so a run may be killed and started anew. Retrainings repeated
with another order of the rows tell noise from signal.

    subset s    n/2 of the n rows, drawn by seed s
    deletion    drop the k best rows of a query, retrain on the rest: how far its loss rises, beside dropping k random rows

Scores are positive where a row makes the query likelier. What is retrained: `retraining_tasks`;
what scores are worth: `fidelity`.
"""

import argparse
import copy
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fidelity import Array, Bools, Indices
from retraining_tasks import Recipe, Task, lora_task, toy_task
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from poisonwatch.examples import Example
from poisonwatch.model.encoding import Encoded
from poisonwatch.model.pretrained import Pretrained

if TYPE_CHECKING:
    from peft import PeftModel

TRUTH = Path(__file__).parent / "truth"
CACHE = Path(__file__).parent / "cache"
ALL_ROWS = 1_000_000  # where a subset's seed stands otherwise
AT_ONCE = 8  # conversations that go through the model together


class Retrainer:
    """Trains a task's model again and again from the same start; the same rows and seed give the
    same losses.

    `pack_tokens` bounds what goes through the model together beside AT_ONCE: the attention of
    packed conversations costs the square of their tokens, which long rows feel.
    """

    def __init__(self, task: Task, pack_tokens: int | None = None) -> None:
        pretrained = task.start()
        self.task = task
        self.pack_tokens = pack_tokens
        self.fingerprint = pretrained.fingerprint
        self.model = self.judge = pretrained.model
        if task.recipe.rank:
            self.model = copy.deepcopy(
                pretrained.model
            ).bfloat16()  # trains twice as fast; losses are then taken in float32
            _add_lora(self.model, task.recipe.rank)
            self._adapted = _add_lora(self.judge, task.recipe.rank)
        self.model.set_attn_implementation(
            "eager"
        )  # a tenth faster than the fused kernel on a few hundred tokens of one core
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.judged = [p for p in self.judge.parameters() if p.requires_grad]
        self.initial = [p.detach().clone() for p in self.trained]
        encoder = pretrained.make_encoder()
        self.rows = [encoder.encode_example(example) for example in task.rows]
        self.queries = [encoder.encode_example(example) for example in task.queries]

    def losses(self, kept: Indices, seed: Sequence[int]) -> Array:
        """Losses (Q,) in nats a token after training on the `kept` rows, shuffled by `seed`."""
        self.train(kept, seed)
        return self.query_losses()

    def reset(self) -> None:
        with torch.no_grad():
            for parameter, initial in zip(self.trained, self.initial, strict=True):
                parameter.copy_(initial)

    def train(self, kept: Indices, seed: Sequence[int]) -> None:
        recipe = self.task.recipe
        self.reset()
        optimizer = torch.optim.AdamW(self.trained, lr=recipe.rate, weight_decay=0.0)
        steps = list(_shuffled_batches(kept, recipe, seed))
        warm = max(1, len(steps) // 10)
        for step, rows in enumerate(steps):
            optimizer.param_groups[0]["lr"] = recipe.rate * min(
                (step + 1) / warm, (len(steps) - step) / (len(steps) - warm + 1)
            )
            for pack in _packs([self.rows[i] for i in rows], self.pack_tokens):
                losses = _row_losses(self.model, pack)
                (losses.sum() / len(rows)).backward()
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    @torch.no_grad()
    def query_losses(self) -> Array:
        self._hand_over()
        parts = _packs(self.queries, self.pack_tokens)
        return torch.cat([_row_losses(self.judge, part) for part in parts]).double().numpy()

    @torch.no_grad()
    def _hand_over(self) -> None:
        for parameter, trained in zip(self.judged, self.trained, strict=True):
            parameter.copy_(trained)

    def merged(self) -> nn.Module:
        """The trained model as plain weights, float32; the retrainer is spent."""
        self._hand_over()
        return self._adapted.merge_and_unload() if self.task.recipe.rank else self.judge


def _add_lora(model: PreTrainedModel, rank: int) -> "PeftModel":
    """Give the projections of `model` LoRA weights in place, float32 and the same each time;
    nothing else is trained.
    """
    from peft import LoraConfig, get_peft_model  # optional: the toy task needs none

    torch.manual_seed(0)
    model.requires_grad_(False)
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"])
    )


def _shuffled_batches(kept: Indices, recipe: Recipe, seed: Sequence[int]) -> Iterator[Indices]:
    """Batches of all epochs; every other epoch runs the one before backwards, so that no row gains
    by its place as the rate falls.
    """
    rng = np.random.default_rng(seed)
    order = kept
    for epoch in range(recipe.epochs):
        order = order[::-1] if epoch % 2 else rng.permutation(kept)
        yield from np.array_split(order, -(-len(order) // recipe.batch_size))


def _packs(encoded: Sequence[Encoded], tokens: int | None) -> Iterator[Sequence[Encoded]]:
    """Runs of at most AT_ONCE conversations and, where a bound is given, at most `tokens` tokens;
    a longer conversation goes alone.
    """
    pack: list[Encoded] = []
    for item in encoded:
        full = tokens is not None and sum(map(len, pack)) + len(item) > tokens
        if pack and (full or len(pack) == AT_ONCE):
            yield pack
            pack = []
        pack.append(item)
    yield pack


def _row_losses(model: PreTrainedModel, encoded: Sequence[Encoded]) -> Tensor:
    """Mean cross-entropy (b,) over each conversation's answer tokens; only the positions before
    these pass the head.
    """
    packed = _pack(encoded)
    mask = torch.zeros(packed.mask.shape, dtype=model.dtype).masked_fill(
        ~packed.mask, torch.finfo(model.dtype).min
    )[None, None]
    states = model.get_decoder()(
        packed.input_ids[None],
        attention_mask=mask,
        position_ids=packed.position_ids[None],
        use_cache=False,
    )
    logits = model.get_output_embeddings()(states.last_hidden_state[0, packed.predicts]).float()
    token_loss = cross_entropy(logits, packed.targets, reduction="none")
    total = torch.zeros(len(encoded)).index_add(0, packed.owner, token_loss)
    return total / torch.bincount(packed.owner, minlength=len(encoded))


@dataclass(frozen=True, slots=True)
class _Packed:
    """Conversations in one sequence of T tokens, without padding.

    The opening that all share (the template's, a third of a short row) stands there once, then what
    follows of each. `input_ids`, `position_ids` (T,); `mask` (T, T), True where a token sees
    another: the shared opening and its own conversation so far. `predicts` (a,) are the places
    before answer tokens, `targets` (a,) these tokens, `owner` (a,) their conversations.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    predicts: Tensor
    targets: Tensor
    owner: Tensor


def _pack(encoded: Sequence[Encoded]) -> _Packed:
    tokens = [list(map(int, item.input_ids)) for item in encoded]
    answers = [list(map(int, np.flatnonzero(item.answer))) for item in encoded]
    openings = zip(
        *(one[: answer[0] - 1] for one, answer in zip(tokens, answers, strict=True)), strict=False
    )
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, openings)))
    ids, positions, segments = tokens[0][:shared], list(range(shared)), [-1] * shared
    predicts, targets, owner = [], [], []
    for i, (one, answer) in enumerate(zip(tokens, answers, strict=True)):
        offset = len(ids) - shared
        predicts += [offset + t - 1 for t in answer]
        targets += [one[t] for t in answer]
        owner += [i] * len(answer)
        ids += one[shared:]
        positions += range(shared, len(one))
        segments += [i] * (len(one) - shared)
    segment = torch.tensor(segments)
    causal = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    mask = causal & ((segment[None, :] == segment[:, None]) | (segment[None, :] == -1))
    return _Packed(
        torch.tensor(ids),
        torch.tensor(positions),
        mask,
        torch.tensor(predicts),
        torch.tensor(targets),
        torch.tensor(owner),
    )


class Store:
    """JSON lines on disk. A line torn by a kill is dropped; a header of other rows, queries, model
    or recipe is refused.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        lines = _whole_lines(path)
        if lines and lines[0] != header:
            differ = sorted(
                key
                for key in header.keys() | lines[0].keys()
                if header.get(key) != lines[0].get(key)
            )
            raise SystemExit(
                f"{path.name} was made with another {', '.join(differ)}: move it away to start anew"
            )
        self.records = lines[1:]
        if not lines:
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            self._append(header)

    def add(self, record: dict[str, Any]) -> None:
        self._append(record)
        self.records.append(record)

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def _rounded(losses: Array) -> list[float]:
    return [round(loss, 6) for loss in losses.tolist()]


def header(task: Task, fingerprint: str) -> dict[str, Any]:
    """What results depend on: settings, and SHA-256 ids for everything that is text."""
    return {
        "task": task.name,
        "recipe": asdict(task.recipe),
        "model": fingerprint,
        "rows": [example.id for example in task.rows],
        "queries": [example.id for example in task.queries],
    }


def subset(seed: int, n: int) -> Indices:
    """n // 2 of the numbers below n, ascending."""
    return np.sort(np.random.default_rng(seed).choice(n, n // 2, replace=False))


def retrain(task: Task, count: int, repeats: int) -> None:
    """Fill `truth/<task>.jsonl` up to `count` subsets, each retrained with `repeats` orders of its
    rows.
    """
    retrainer = Retrainer(task)
    store = Store(TRUTH / f"{task.name}.jsonl", header(task, retrainer.fingerprint))
    done = {(record["seed"], record["repeat"]) for record in store.records}
    for seed, repeat in (
        (seed, repeat)
        for seed in range(count)
        for repeat in range(repeats)
        if (seed, repeat) not in done
    ):
        start = time.perf_counter()
        losses = retrainer.losses(subset(seed, len(task.rows)), (seed, repeat))
        seconds = time.perf_counter() - start
        store.add(
            {
                "seed": seed,
                "repeat": repeat,
                "losses": _rounded(losses),
                "seconds": round(seconds, 1),
            }
        )
        print(
            f"{task.name}: subset {seed}, repeat {repeat}, {seconds:.1f} s, mean loss {losses.mean():.4f}",
            flush=True,
        )


def load_truth(name: str, rows: Sequence[Example] | None = None) -> tuple[Bools, Array]:
    """What was retrained so far for a task: subsets (m, n), True for rows trained on, and losses
    (m, Q) in nats a token.

    Losses are means over as many orders of the rows as every subset was retrained with.
    `rows`, where given, must be the rows that were trained on, in their order.
    """
    head, *records = _whole_lines(TRUTH / f"{name}.jsonl")
    if rows is not None and [example.id for example in rows] != head["rows"]:
        raise ValueError(f"{name}.jsonl was made with other rows: use those of {name}_task")
    by_seed = _by_seed(records)
    orders = min(map(len, by_seed.values()))
    subsets = np.zeros((len(by_seed), len(head["rows"])), dtype=np.bool_)
    for kept, seed in zip(subsets, by_seed, strict=True):
        kept[subset(seed, len(kept))] = True
    return subsets, np.array([np.mean(losses[:orders], axis=0) for losses in by_seed.values()])


def _by_seed(records: list[dict[str, Any]]) -> dict[int, list[list[float]]]:
    """Losses of each subset, by ascending seed, then repeat."""
    losses: dict[int, list[list[float]]] = {}
    for record in sorted(records, key=lambda record: (record["seed"], record["repeat"])):
        losses.setdefault(record["seed"], []).append(record["losses"])
    return losses


def noise(name: str) -> tuple[Array, Array]:
    """Standard deviations (Q,) of the losses of one retraining, in nats a token: over orders of one
    subset's rows, and over all subsets.

    The latter includes the former: no scorer can be expected to correlate better than sqrt(1 -
    noise^2 / spread^2).
    """
    _, *records = _whole_lines(TRUTH / f"{name}.jsonl")
    by_seed = _by_seed(records)
    repeated = [losses for losses in by_seed.values() if len(losses) > 1]
    if not repeated:
        raise ValueError(f"{name}.jsonl holds no subset twice: run with --repeats 2 first")
    within = np.mean([np.var(losses, axis=0, ddof=1) for losses in repeated], axis=0)
    spread = np.std([losses[0] for losses in by_seed.values()], axis=0, ddof=1)
    return np.sqrt(within), spread


@lru_cache(maxsize=1)
def _retrainer(task: Task) -> Retrainer:
    return Retrainer(task)


def losses_without(task: Task, dropped: Indices, repeat: int) -> Array:
    """Losses (Q,) after training on all rows but the `dropped`; kept in
    `truth/<task>-deletion.jsonl`.
    """
    path = TRUTH / f"{task.name}-deletion.jsonl"
    key = {
        "dropped": hashlib.sha256(np.sort(dropped).astype("<i8").tobytes()).hexdigest(),
        "k": len(dropped),
        "repeat": repeat,
    }
    known = next(
        (record for record in _whole_lines(path)[1:] if key.items() <= record.items()), None
    )
    if known is None:
        retrainer = _retrainer(task)
        store = Store(path, header(task, retrainer.fingerprint))
        kept = np.setdiff1d(np.arange(len(task.rows)), dropped)
        known = {**key, "losses": _rounded(retrainer.losses(kept, (ALL_ROWS, repeat)))}
        store.add(known)
    return np.array(known["losses"])


@dataclass(frozen=True, slots=True)
class DeletionCurve:
    """How far a query's loss rises without k rows, for each of `ks`: `top` (ks,) those of highest
    score, `random` (ks, repeats) any k.
    """

    ks: tuple[int, ...]
    top: Array
    random: Array


def deletion_curve(
    task: Task, query: int, scores: Array, ks: Sequence[int] = (10, 25, 50), random_repeats: int = 3
) -> DeletionCurve:
    """Drop the k rows of highest score (n,) for one query, retrain, and compare with dropping k
    random rows; rises in nats a token.

    Losses with all rows and without the top rows are means over `random_repeats` orders of the
    rows; random rows are drawn anew each time.
    """
    repeats = range(random_repeats)
    n = len(task.rows)
    ranked = np.argsort(-scores, kind="stable")

    def loss(dropped: Indices, repeat: int) -> float:
        return float(losses_without(task, dropped, repeat)[query])

    whole = np.mean([loss(ranked[:0], repeat) for repeat in repeats])
    top = np.array([np.mean([loss(ranked[:k], repeat) for repeat in repeats]) for k in ks])
    random = np.array(
        [
            [
                loss(np.random.default_rng((k, repeat)).choice(n, k, replace=False), repeat)
                for repeat in repeats
            ]
            for k in ks
        ]
    )
    return DeletionCurve(tuple(ks), top - whole, random - whole)


def trained_model(task: Task) -> Pretrained:
    """The task's model after training on all rows (LoRA merged into the weights), float32; kept in
    `benchmarks/cache`.
    """
    pretrained = task.start()
    digest = hashlib.sha256(json.dumps(header(task, pretrained.fingerprint)).encode()).hexdigest()
    path = CACHE / f"trained-{task.name}-{digest[:12]}.pt"
    if not path.exists():
        retrainer = Retrainer(task)
        retrainer.train(np.arange(len(task.rows)), (ALL_ROWS, 0))
        CACHE.mkdir(exist_ok=True)
        torch.save(retrainer.merged().state_dict(), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    pretrained.model.load_state_dict(torch.load(path, weights_only=True))
    return replace(pretrained, fingerprint=digest)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["toy", "lora"])
    parser.add_argument("--data", type=Path, help="folder of real cases, for lora")
    parser.add_argument(
        "--count", type=int, default=100, help="subsets in all, those on disk included"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="retrainings of each subset, with other orders of its rows",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task == "lora" and not options.data:
        parser.error("lora needs --data")
    retrain(
        toy_task() if options.task == "toy" else lora_task(options.data),
        options.count,
        options.repeats,
    )


if __name__ == "__main__":
    main()
