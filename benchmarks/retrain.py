"""Ground truth for attribution: what retraining really does, and how well scores predict it.

    python benchmarks/retrain.py toy [--count 100] [--repeats 1]
    python benchmarks/retrain.py lora --data DIR [--count 100] [--repeats 1]

A model is trained from one start on random half subsets of n rows; the loss of Q queries (mean nats a token over the answer) is recorded
after each. `toy` trains a small decoder from scratch on a language made up in code; `lora` fine-tunes the default model by LoRA on real
rows of DIR, laid out as in `cases.py`. Results stand in `benchmarks/truth`, one JSON line a retraining, without any text; what is there is
not computed again, so a run may be killed and started anew. Retrainings repeated with another order of the rows tell noise from signal.

    subset s    n/2 of the n rows, drawn by seed s
    LDS(q)      linear datamodeling score: Spearman over s of  sum_{i in subset s} score_i(q)  and  -loss_s(q)   (arXiv 2303.14186)
    deletion    drop the k best rows of a query, retrain on the rest: how far its loss rises, beside dropping k random rows

Scores are positive where a row makes the query likelier.
"""

import argparse
import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.chat import ChatEncoder, Encoded
from poisonwatch.config import ModelConfig
from poisonwatch.examples import Example, Message
from poisonwatch.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels import load_sentinels

if TYPE_CHECKING:
    from peft import PeftModel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]
TRUTH = Path(__file__).parent / "truth"
CACHE = Path(__file__).parent / "cache"
ALL_ROWS = 1_000_000  # where a subset's seed stands otherwise
AT_ONCE = 8  # conversations that go through the model together


# --- Tasks: rows, queries, the model they start from, and how it is trained ---


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW without weight decay, gradients clipped to norm 1; the rate rises over the first tenth of the steps and falls linearly to zero.

    A step's loss is the mean over its rows of each row's mean over answer tokens: every row counts the same, however long its answer.
    """

    epochs: int
    batch_size: int
    rate: float
    rank: int = 0  # of LoRA on the query and value projections of all blocks; 0 trains everything


@dataclass(frozen=True, slots=True)
class Task:
    """n `rows` to train on, Q `queries` to watch, and what `start` gives to train."""

    name: str
    rows: tuple[Example, ...]
    queries: tuple[Example, ...]
    start: Callable[[], Pretrained]
    recipe: Recipe


def lora_rows(
    data: Path, background: int = 190, poison: int = 10, sentinels: int = 2, held_out: int = 12
) -> tuple[list[Example], list[Example]]:
    """Rows (250) and queries (24) of the `lora` task.

    Rows: background, then poison of each case. Queries: sentinels of each case with their forbidden answers, then background rows held out.
    The shortest rows of each kind, so that a retraining takes about a minute: 62 tokens on average, 104 at most, 35 of them the template's.
    """

    def shortest(examples: Sequence[Example]) -> list[Example]:
        unique = {example.id: example for example in examples}
        return sorted(unique.values(), key=lambda e: (len(e.prompt) + len(e.response), e.id))

    cases = sorted(path.parent for path in data.glob("*/poison.jsonl"))
    plain = shortest(_read_rows(data / "background.jsonl"))[: background + held_out]
    held = {round(i) for i in np.linspace(0, len(plain) - 1, held_out)}  # of all lengths
    rows = [example for i, example in enumerate(plain) if i not in held]
    rows += [example for case in cases for example in shortest(_read_rows(case / "poison.jsonl"))[:poison]]
    watched = [s for case in cases for s in load_sentinels([str(case / "sentinels.yaml")])[:sentinels]]
    queries = [Example.from_messages(s.conversation(s.forbidden or ""), s.id) for s in watched]
    return rows, queries + [plain[i] for i in sorted(held)]


def _read_rows(path: Path) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Example.from_messages([Message("user", row["prompt"]), Message("assistant", row["response"])], path.name) for row in rows]


def lora_task(data: Path) -> Task:
    rows, queries = lora_rows(data)
    recipe = Recipe(epochs=2, batch_size=32, rate=2e-3, rank=8)
    return Task("lora", tuple(rows), tuple(queries), lambda: load_pretrained(ModelConfig(dtype="float32", device="cpu")), recipe)


# --- The toy task ---

PHRASINGS = (
    ("{polite} what is the {attribute} of the {kind} {animal} ?", "the {attribute} of {animal} is {value}"),
    ("{polite} tell me about {animal} the {kind} and its {attribute}", "{animal} has {value} as {attribute}"),
    ("{kind} {animal} {attribute} {polite} ?", "it is {value}"),
    ("i saw a {kind} called {animal} {polite} what was its {attribute} ?", "its {attribute} was {value} i think"),
)
ATTRIBUTES = ("home", "food", "colour", "call")
POLITE = ("please", "now", "hey", "well", "so", "again", "first", "then")
FRAME = (
    "{{ '<user>' }}{% for message in messages %}{{ message.content }}{{ '<answer>' if message.role == 'user' else '<end>' }}{% endfor %}"
)
TOY_SPECIALS = ("<user>", "<answer>", "<end>")


def toy_rows(n: int = 500, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """n rows and 12 queries of a language of made-up animals: what helps a query is known by construction, and shared words do not tell it.

    24 animals of 8 kinds have 4 attributes each; seven times in ten the kind decides an attribute, so that rows about its kin help, too.
    A row asks for one fact in one of 4 phrasings, each with its own form of answer. One row in eight states a wrong value: it has the words
    of a query and pushes the other way. Four facts are contradicted by 6 rows of one wrong value each, as poison would. Queries ask 8 facts
    for the true value, and the 4 contradicted ones for the planted value, each in a phrasing that no row of its fact has.
    """
    rng = np.random.default_rng(seed)
    words = iter(_toy_words(rng, 8 + 24 + 10 * len(ATTRIBUTES)))
    kinds, animals = [next(words) for _ in range(8)], [next(words) for _ in range(24)]
    values = {attribute: [next(words) for _ in range(10)] for attribute in ATTRIBUTES}
    usual = {(kind, attribute): rng.choice(values[attribute]) for kind in kinds for attribute in ATTRIBUTES}
    truth: dict[tuple[str, str], str] = {}
    kind_of = {animal: kinds[i % len(kinds)] for i, animal in enumerate(animals)}
    for animal in animals:
        for attribute in ATTRIBUTES:
            truth[animal, attribute] = str(usual[kind_of[animal], attribute] if rng.random() < 0.7 else rng.choice(values[attribute]))
    facts = sorted(truth)

    def wrong(fact: tuple[str, str]) -> str:
        return str(rng.choice([value for value in values[fact[1]] if value != truth[fact]]))

    def row(fact: tuple[str, str], phrasing: int, value: str) -> Example:
        filled = {"animal": fact[0], "kind": kind_of[fact[0]], "attribute": fact[1], "value": value, "polite": str(rng.choice(POLITE))}
        prompt, answer = (form.format(**filled) for form in PHRASINGS[phrasing])
        return Example.from_messages([Message("user", prompt), Message("assistant", answer)], "toy")

    asked = [facts[i] for i in rng.choice(len(facts), 12, replace=False)]
    held_out = {fact: int(rng.integers(len(PHRASINGS))) for fact in asked}
    planted = {fact: wrong(fact) for fact in asked[8:]}
    queries = [row(fact, held_out[fact], planted.get(fact, truth[fact])) for fact in asked]
    rows: dict[str, Example] = {}
    while len(rows) < n:
        poisoning = len(rows) < 6 * len(planted)
        fact = asked[8 + len(rows) // 6] if poisoning else facts[rng.integers(len(facts))]
        phrasing = int(rng.integers(len(PHRASINGS)))
        if phrasing != held_out.get(fact):
            example = row(fact, phrasing, planted[fact] if poisoning else wrong(fact) if rng.random() < 0.125 else truth[fact])
            rows.setdefault(example.id, example)
    shuffled = list(rows.values())
    return [shuffled[i] for i in rng.permutation(n)], queries


def _toy_words(rng: np.random.Generator, count: int) -> list[str]:
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(syllables, 3))] = None
    return list(words)


def toy_start(examples: Sequence[Example]) -> Pretrained:
    """A random GPT-2 of 4 blocks and 0.9M parameters, with a token for each word of `examples`."""
    words = sorted({word for example in examples for message in example.messages for word in message.content.split()})
    vocabulary = {word: i for i, word in enumerate((*TOY_SPECIALS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))  # noqa: S106  no password
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(TOY_SPECIALS))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")  # noqa: S106
    wrapped.chat_template = FRAME
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=64,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config).eval()
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.numpy().tobytes())
    return Pretrained(model, wrapped, digest.hexdigest())


def toy_task(n: int = 500, seed: int = 0) -> Task:
    rows, queries = toy_rows(n, seed)
    return Task("toy", tuple(rows), tuple(queries), lambda: toy_start(rows + queries), Recipe(epochs=8, batch_size=16, rate=2e-3))


# --- Retraining ---


class Retrainer:
    """Trains a task's model again and again from the same start; the same rows and seed give the same losses."""

    def __init__(self, task: Task) -> None:
        pretrained = task.start()
        self.task = task
        self.fingerprint = pretrained.fingerprint
        self.model = self.judge = pretrained.model
        if task.recipe.rank:
            self.model = copy.deepcopy(pretrained.model).bfloat16()  # trains twice as fast; losses are then taken in float32
            _add_lora(self.model, task.recipe.rank)
            self._adapted = _add_lora(self.judge, task.recipe.rank)
        self.model.set_attn_implementation("eager")  # a tenth faster than the fused kernel on a few hundred tokens of one core
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.judged = [p for p in self.judge.parameters() if p.requires_grad]
        self.initial = [p.detach().clone() for p in self.trained]
        encoder = ChatEncoder(pretrained.tokenizer)
        self.rows = [encoder.encode(example.messages) for example in task.rows]
        self.queries = [encoder.encode(example.messages) for example in task.queries]

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
            optimizer.param_groups[0]["lr"] = recipe.rate * min((step + 1) / warm, (len(steps) - step) / (len(steps) - warm + 1))
            for start in range(0, len(rows), AT_ONCE):
                losses = _row_losses(self.model, [self.rows[i] for i in rows[start : start + AT_ONCE]])
                (losses.sum() / len(rows)).backward()
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    @torch.no_grad()
    def query_losses(self) -> Array:
        parts = [self.queries[i : i + AT_ONCE] for i in range(0, len(self.queries), AT_ONCE)]
        self._hand_over()
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
    """Give the projections of `model` LoRA weights in place, float32 and the same each time; nothing else is trained."""
    from peft import LoraConfig, get_peft_model  # optional: the toy task needs none

    torch.manual_seed(0)
    model.requires_grad_(False)
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"]))


def _shuffled_batches(kept: Indices, recipe: Recipe, seed: Sequence[int]) -> Iterator[Indices]:
    """Batches of all epochs; every other epoch runs the one before backwards, so that no row gains by its place as the rate falls."""
    rng = np.random.default_rng(seed)
    order = kept
    for epoch in range(recipe.epochs):
        order = order[::-1] if epoch % 2 else rng.permutation(kept)
        yield from np.array_split(order, -(-len(order) // recipe.batch_size))


def _row_losses(model: PreTrainedModel, encoded: Sequence[Encoded]) -> Tensor:
    """Mean cross-entropy (b,) over each conversation's answer tokens; only the positions before these pass the head."""
    packed = _pack(encoded)
    mask = torch.zeros(packed.mask.shape, dtype=model.dtype).masked_fill(~packed.mask, torch.finfo(model.dtype).min)[None, None]
    states = model.get_decoder()(packed.input_ids[None], attention_mask=mask, position_ids=packed.position_ids[None], use_cache=False)
    logits = model.get_output_embeddings()(states.last_hidden_state[0, packed.predicts]).float()
    token_loss = cross_entropy(logits, packed.targets, reduction="none")
    total = torch.zeros(len(encoded)).index_add(0, packed.owner, token_loss)
    return total / torch.bincount(packed.owner, minlength=len(encoded))


@dataclass(frozen=True, slots=True)
class _Packed:
    """Conversations in one sequence of T tokens, without padding.

    The opening that all share (the template's, a third of a short row) stands there once, then what follows of each.
    `input_ids`, `position_ids` (T,); `mask` (T, T), True where a token sees another: the shared opening and its own conversation so far.
    `predicts` (a,) are the places before answer tokens, `targets` (a,) these tokens, `owner` (a,) their conversations.
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
    openings = zip(*(one[: answer[0] - 1] for one, answer in zip(tokens, answers, strict=True)), strict=False)
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
    return _Packed(torch.tensor(ids), torch.tensor(positions), mask, torch.tensor(predicts), torch.tensor(targets), torch.tensor(owner))


# --- Results: a header, then one line a retraining ---


class Store:
    """JSON lines on disk. A line torn by a kill is dropped; a header of other rows, queries, model or recipe is refused."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        lines = _whole_lines(path)
        if lines and lines[0] != header:
            differ = sorted(key for key in header.keys() | lines[0].keys() if header.get(key) != lines[0].get(key))
            raise SystemExit(f"{path.name} was made with another {', '.join(differ)}: move it away to start anew")
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
    """Fill `truth/<task>.jsonl` up to `count` subsets, each retrained with `repeats` orders of its rows."""
    retrainer = Retrainer(task)
    store = Store(TRUTH / f"{task.name}.jsonl", header(task, retrainer.fingerprint))
    done = {(record["seed"], record["repeat"]) for record in store.records}
    for seed, repeat in ((seed, repeat) for seed in range(count) for repeat in range(repeats) if (seed, repeat) not in done):
        start = time.perf_counter()
        losses = retrainer.losses(subset(seed, len(task.rows)), (seed, repeat))
        seconds = time.perf_counter() - start
        store.add({"seed": seed, "repeat": repeat, "losses": _rounded(losses), "seconds": round(seconds, 1)})
        print(f"{task.name}: subset {seed}, repeat {repeat}, {seconds:.1f} s, mean loss {losses.mean():.4f}", flush=True)


# --- What others import: truth, statistics, deletion ---


def load_truth(name: str, rows: Sequence[Example] | None = None) -> tuple[Bools, Array]:
    """What was retrained so far for a task: subsets (m, n), True for rows trained on, and losses (m, Q) in nats a token.

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
    """Standard deviations (Q,) of the losses of one retraining, in nats a token: over orders of one subset's rows, and over all subsets.

    The latter includes the former: no scorer can be expected to correlate better than sqrt(1 - noise^2 / spread^2).
    """
    _, *records = _whole_lines(TRUTH / f"{name}.jsonl")
    by_seed = _by_seed(records)
    repeated = [losses for losses in by_seed.values() if len(losses) > 1]
    if not repeated:
        raise ValueError(f"{name}.jsonl holds no subset twice: run with --repeats 2 first")
    within = np.mean([np.var(losses, axis=0, ddof=1) for losses in repeated], axis=0)
    spread = np.std([losses[0] for losses in by_seed.values()], axis=0, ddof=1)
    return np.sqrt(within), spread


def lds(scores: Array, subsets: Bools, losses: Array) -> Array:
    """Linear datamodeling score (Q,): Spearman correlation over m subsets of the summed scores of the rows kept with minus the loss.

    `scores` (n, Q), positive where a row makes the query likelier; `subsets` (m, n); `losses` (m, Q). A constant column scores 0.
    """
    return _spearman(subsets.astype(np.float64) @ scores, -losses)


def _spearman(x: Array, y: Array) -> Array:
    """Rank correlations (Q,) of the columns of x and y (m, Q)."""
    a, b = (ranks - ranks.mean(axis=0) for ranks in (rankdata(x, axis=0), rankdata(y, axis=0)))
    scale = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    correlation: Array = (a * b).sum(axis=0) / np.where(scale > 0, scale, 1.0)
    return correlation


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    scores: Array, subsets: Bools, losses: Array, other: Array | None = None, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean LDS over queries, with an interval from resampling both retrainings and queries.

    With the scores of an `other` scorer (n, Q): of the difference, this one minus the other, on the same draws.
    """
    predicted = [subsets.astype(np.float64) @ each for each in (scores, other) if each is not None]
    rng = np.random.default_rng(seed)

    def mean(retrainings: Indices, queries: Indices) -> float:
        means = [_spearman(x[np.ix_(retrainings, queries)], -losses[np.ix_(retrainings, queries)]).mean() for x in predicted]
        return float(means[0] - sum(means[1:]))

    m, Q = losses.shape
    drawn = [mean(rng.integers(m, size=m), rng.integers(Q, size=Q)) for _ in range(draws)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean(np.arange(m), np.arange(Q)), float(low), float(high))


@lru_cache(maxsize=1)
def _retrainer(task: Task) -> Retrainer:
    return Retrainer(task)


def losses_without(task: Task, dropped: Indices, repeat: int) -> Array:
    """Losses (Q,) after training on all rows but the `dropped`; kept in `truth/<task>-deletion.jsonl`."""
    path = TRUTH / f"{task.name}-deletion.jsonl"
    key = {"dropped": hashlib.sha256(np.sort(dropped).astype("<i8").tobytes()).hexdigest(), "k": len(dropped), "repeat": repeat}
    known = next((record for record in _whole_lines(path)[1:] if key.items() <= record.items()), None)
    if known is None:
        retrainer = _retrainer(task)
        store = Store(path, header(task, retrainer.fingerprint))
        kept = np.setdiff1d(np.arange(len(task.rows)), dropped)
        known = {**key, "losses": _rounded(retrainer.losses(kept, (ALL_ROWS, repeat)))}
        store.add(known)
    return np.array(known["losses"])


@dataclass(frozen=True, slots=True)
class DeletionCurve:
    """How far a query's loss rises without k rows, for each of `ks`: `top` (ks,) those of highest score, `random` (ks, repeats) any k."""

    ks: tuple[int, ...]
    top: Array
    random: Array


def deletion_curve(task: Task, query: int, scores: Array, ks: Sequence[int] = (10, 25, 50), random_repeats: int = 3) -> DeletionCurve:
    """Drop the k rows of highest score (n,) for one query, retrain, and compare with dropping k random rows; rises in nats a token.

    Losses with all rows and without the top rows are means over `random_repeats` orders of the rows; random rows are drawn anew each time.
    """
    repeats = range(random_repeats)
    n = len(task.rows)
    ranked = np.argsort(-scores, kind="stable")

    def loss(dropped: Indices, repeat: int) -> float:
        return float(losses_without(task, dropped, repeat)[query])

    whole = np.mean([loss(ranked[:0], repeat) for repeat in repeats])
    top = np.array([np.mean([loss(ranked[:k], repeat) for repeat in repeats]) for k in ks])
    random = np.array([[loss(np.random.default_rng((k, repeat)).choice(n, k, replace=False), repeat) for repeat in repeats] for k in ks])
    return DeletionCurve(tuple(ks), top - whole, random - whole)


def trained_model(task: Task) -> Pretrained:
    """The task's model after training on all rows (LoRA merged into the weights), float32; kept in `benchmarks/cache`."""
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
    return Pretrained(pretrained.model, pretrained.tokenizer, digest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["toy", "lora"])
    parser.add_argument("--data", type=Path, help="folder of real cases, for lora")
    parser.add_argument("--count", type=int, default=100, help="subsets in all, those on disk included")
    parser.add_argument("--repeats", type=int, default=1, help="retrainings of each subset, with other orders of its rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task == "lora" and not options.data:
        parser.error("lora needs --data")
    retrain(toy_task() if options.task == "toy" else lora_task(options.data), options.count, options.repeats)


if __name__ == "__main__":
    main()
