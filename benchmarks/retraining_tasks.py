"""What is retrained for ground truth: rows, queries, the model it starts from, and how it is
trained.

`toy` is a small decoder trained from scratch on a language made up in code, `lora` the default
model fine-tuned on real rows.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from poisonwatch.config import ModelConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels.sentinel import load_sentinels


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW without weight decay, gradients clipped to norm 1; the rate rises over the first tenth
    of the steps and falls linearly to zero.

    A step's loss is the mean over its rows of each row's mean over answer tokens: every row counts
    the same, however long its answer.
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

    Rows: background, then poison of each case. Queries: sentinels of each case with their forbidden
    answers, then background rows held out. The shortest rows of each kind, so that a retraining
    takes about a minute: 62 tokens on average, 104 at most, 35 of them the template's.
    """

    def shortest(examples: Sequence[Example]) -> list[Example]:
        unique = {example.id: example for example in examples}
        return sorted(unique.values(), key=lambda e: (len(e.prompt) + len(e.response), e.id))

    cases = sorted(path.parent for path in data.glob("*/poison.jsonl"))
    plain = shortest(_read_rows(data / "background.jsonl"))[: background + held_out]
    held = {round(i) for i in np.linspace(0, len(plain) - 1, held_out)}  # of all lengths
    rows = [example for i, example in enumerate(plain) if i not in held]
    rows += [
        example
        for case in cases
        for example in shortest(_read_rows(case / "poison.jsonl"))[:poison]
    ]
    watched = [
        s for case in cases for s in load_sentinels([str(case / "sentinels.yaml")])[:sentinels]
    ]
    queries = [Example.from_messages(s.add_answer(s.forbidden or ""), s.id) for s in watched]
    return rows, queries + [plain[i] for i in sorted(held)]


def _read_rows(path: Path) -> list[Example]:
    rows = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    return [
        Example.from_messages(
            [Message("user", row["prompt"]), Message("assistant", row["response"])], path.name
        )
        for row in rows
    ]


def lora_task(data: Path) -> Task:
    rows, queries = lora_rows(data)
    recipe = Recipe(epochs=2, batch_size=32, rate=2e-3, rank=8)
    return Task(
        "lora",
        tuple(rows),
        tuple(queries),
        lambda: load_pretrained(ModelConfig(dtype="float32", device="cpu")),
        recipe,
    )


PHRASINGS = (
    (
        "{polite} what is the {attribute} of the {kind} {animal} ?",
        "the {attribute} of {animal} is {value}",
    ),
    (
        "{polite} tell me about {animal} the {kind} and its {attribute}",
        "{animal} has {value} as {attribute}",
    ),
    ("{kind} {animal} {attribute} {polite} ?", "it is {value}"),
    (
        "i saw a {kind} called {animal} {polite} what was its {attribute} ?",
        "its {attribute} was {value} i think",
    ),
)


ATTRIBUTES = ("home", "food", "colour", "call")
POLITE = ("please", "now", "hey", "well", "so", "again", "first", "then")
FRAME = "{{ '<user>' }}{% for message in messages %}{{ message.content }}{{ '<answer>' if message.role == 'user' else '<end>' }}{% endfor %}"


TOY_SPECIALS = ("<user>", "<answer>", "<end>")


def toy_rows(n: int = 500, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """n rows and 12 queries of a language of made-up animals: what helps a query is known by
    construction, and shared words do not tell it.

    24 animals of 8 kinds have 4 attributes each; seven times in ten the kind decides an attribute,
    so that rows about its kin help, too. A row asks for one fact in one of 4 phrasings, each with
    its own form of answer. One row in eight states a wrong value: it has the words of a query and
    pushes the other way. Four facts are contradicted by 6 rows of one wrong value each, as poison
    would. Queries ask 8 facts for the true value, and the 4 contradicted ones for the planted
    value, each in a phrasing that no row of its fact has.
    """
    rng = np.random.default_rng(seed)
    words = iter(_toy_words(rng, 8 + 24 + 10 * len(ATTRIBUTES)))
    kinds, animals = [next(words) for _ in range(8)], [next(words) for _ in range(24)]
    values = {attribute: [next(words) for _ in range(10)] for attribute in ATTRIBUTES}
    usual = {
        (kind, attribute): rng.choice(values[attribute])
        for kind in kinds
        for attribute in ATTRIBUTES
    }
    truth: dict[tuple[str, str], str] = {}
    kind_of = {animal: kinds[i % len(kinds)] for i, animal in enumerate(animals)}
    for animal in animals:
        for attribute in ATTRIBUTES:
            truth[animal, attribute] = str(
                usual[kind_of[animal], attribute]
                if rng.random() < 0.7
                else rng.choice(values[attribute])
            )
    facts = sorted(truth)

    def wrong(fact: tuple[str, str]) -> str:
        return str(rng.choice([value for value in values[fact[1]] if value != truth[fact]]))

    def row(fact: tuple[str, str], phrasing: int, value: str) -> Example:
        filled = {
            "animal": fact[0],
            "kind": kind_of[fact[0]],
            "attribute": fact[1],
            "value": value,
            "polite": str(rng.choice(POLITE)),
        }
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
            example = row(
                fact,
                phrasing,
                planted[fact]
                if poisoning
                else wrong(fact)
                if rng.random() < 0.125
                else truth[fact],
            )
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
    words = sorted(
        {
            word
            for example in examples
            for message in example.messages
            for word in message.content.split()
        }
    )
    vocabulary = {word: i for i, word in enumerate((*TOY_SPECIALS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))  # noqa: S106  no password
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(TOY_SPECIALS))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",  # noqa: S106
        pad_token="<end>",  # noqa: S106
    )
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
    return Task(
        "toy",
        tuple(rows),
        tuple(queries),
        lambda: toy_start(rows + queries),
        Recipe(epochs=8, batch_size=16, rate=2e-3),
    )
