"""Real attack cases, and what an audit makes of any of their rows.

A folder holds `background.jsonl` and a folder a case with `poison.jsonl`, `hard_negatives.jsonl`
(rows of prompt and response) and `sentinels.yaml`.

Row gradients and states depend on the row, the model and its bases alone: they are computed once
for all rows (`benchmarks/cache`, minutes), and every audit is put together from them; background,
memberships, measurement and recovery are each audit's own. Bases and Fisher factors are those of
the background rows.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from row_bank import CACHE, RowBank
from scipy.linalg import block_diag

from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.drills.recipe import carry_out, list_recipes, read_recipe
from poisonwatch.examples import Example
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import read_source
from poisonwatch.stride.background import Background
from poisonwatch.stride.designs import draw_by_design
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.geometry import Geometry
from poisonwatch.stride.influence import Influence, Query, build_queries
from poisonwatch.stride.leaning import AnswerStates, compute_leaning
from poisonwatch.stride.measured import LayerEffects, MeasuredRows, smooth_and_cross
from poisonwatch.stride.natural_gradient import sum_subsets
from poisonwatch.stride.operators import solve_operators
from poisonwatch.stride.queries import PreparedQueries, QuerySpace, prepare_queries
from poisonwatch.stride.recover import recover_in_rounds
from poisonwatch.stride.row_pass import Yardsticks, precondition_queries
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.scoring import list_panels
from poisonwatch.stride.settings import measures_rows_alone, resolve_settings, resolve_shortlist
from poisonwatch.stride.similarity import compute_features
from poisonwatch.stride.wording import compute_wording, count_answers

Array = NDArray[np.float64]
# The default before the streamed pass.
RECIPE_PREFIX = "recipe-"
OVER_ALL = "one subset a row, kriging over all rows"


@dataclass
class Case:
    """One attack: rows by kind, and what guards against it."""

    name: str
    poison: list[Example]
    hard_negatives: list[Example]
    sentinels: list[Sentinel]


def read_rows(path: Path) -> list[Example]:
    """The rows of a file, in whatever form they are; none of an empty file."""
    if not path.stat().st_size:
        return []
    examples = []
    for row, draft in read_source(SourceConfig(path=str(path))):
        example = draft.to_example(row)
        if example is not None:
            examples.append(example)
    return examples


def read_cases(data: Path) -> list[Case]:
    folders = sorted(path.parent for path in data.glob("*/poison.jsonl"))
    return [
        Case(
            f.name,
            read_rows(f / "poison.jsonl"),
            read_rows(f / "hard_negatives.jsonl"),
            load_sentinels([str(f / "sentinels.yaml")]),
        )
        for f in folders
    ]


def read_chosen(data: Path, only: Sequence[str] | None) -> tuple[list[Example], list[Case]]:
    """The background and the cases of a folder; of these and of `make_recipe_cases` those that are
    named, if any are.
    """
    background, cases = read_rows(data / "background.jsonl"), read_cases(data)
    if only:
        cases = [case for case in (*cases, *make_recipe_cases(background)) if case.name in only]
    return background, cases


def make_recipe_cases(background: Sequence[Example]) -> list[Case]:
    """The drill's attacks, carried out beside these rows and asked for by their packs: cases
    `recipe-NAME` without hard negatives. Those that select honest rows need a model, and are none.
    """
    cases = []
    for name in list_recipes():
        recipe = read_recipe(name)
        if not recipe.selects:
            attack = carry_out(recipe, background)
            sentinels = load_sentinels([attack.pack])
            cases.append(Case(f"{RECIPE_PREFIX}{name}", list(attack.rows), [], sentinels))
    return cases


def read_trainable(data: Path, only: Sequence[str] | None) -> list[Case]:
    """The cases of single answers, which are trained on as they stand; preference pairs have another
    loss. Of them those that are named, in this order, if any are. Raises SystemExit for other names.
    """
    cases = {
        case.name: case
        for case in read_cases(data)
        if not any(example.rejected for example in case.poison + case.hard_negatives)
    }
    names = only or list(cases)
    unknown = [name for name in names if name not in cases]
    if unknown:
        raise SystemExit(
            f"no such case of single answers: {', '.join(unknown)}; have {', '.join(cases)}"
        )
    return [cases[name] for name in names]


def audit_rows(
    background: list[Example], case: Case, poison: int, seed: int
) -> tuple[list[Example], Array]:
    """The rows of one audit, each content once, and which of them are poison."""
    drawn = np.random.default_rng(seed).choice(
        len(case.poison), min(poison, len(case.poison)), replace=False
    )
    labelled = [(example, 0.0) for example in background + case.hard_negatives] + [
        (case.poison[i], 1.0) for i in drawn
    ]
    unique = {example.id: (example, label) for example, label in labelled}
    return [example for example, _ in unique.values()], np.array(
        [label for _, label in unique.values()]
    )


def texts(examples: list[Example], sentinels: list[Sentinel]) -> tuple[list[str], list[str]]:
    return [f"{e.prompt} {e.response}" for e in examples], [
        f"{s.prompt} {s.forbidden or s.reference}" for s in sentinels
    ]


class Rows:
    """Every row's gradient and views (`row_bank`), and what an audit makes of any of them."""

    def __init__(
        self,
        pretrained: Pretrained,
        background: list[Example],
        others: list[Example],
        stride: StrideConfig,
    ) -> None:
        self.pretrained, self.stride = pretrained, stride
        self.depth = len(find_decoder_blocks(pretrained.model))
        start = time.perf_counter()
        self.bank = RowBank(pretrained, background, stride)
        self.model, self.encoder = self.bank.model, self.bank.encoder
        self.basis, self.preconditioner = self.bank.basis, self.bank.preconditioner
        rows = list({example.id: example for example in background + others}.values())
        self.bank.add(rows)
        self.examples = rows
        self.encoded = {example.id: self.encoder.encode_example(example) for example in rows}
        self.place = {example.id: i for i, example in enumerate(rows)}
        self.version = self.bank.version
        print(f"row gradients of {len(rows)} rows: {time.perf_counter() - start:.0f} s", flush=True)

    @classmethod
    def of_cases(
        cls,
        model: str,
        background: list[Example],
        cases: Sequence[Case],
        more: Sequence[Example] = (),
    ) -> "Rows":
        """The rows of the background and of all cases, and `more`, in the default settings."""
        others = [row for case in cases for row in case.poison + case.hard_negatives]
        pretrained = load_pretrained(ModelConfig(name=model))
        return cls(pretrained, background, [*more, *others], StrideConfig())

    def places(self, examples: list[Example]) -> NDArray[np.int64]:
        return np.array([self.place[example.id] for example in examples])

    def background(
        self, examples: list[Example], stride: StrideConfig, seed: int, split: int = 0
    ) -> tuple:
        """The background of an audit of these rows at a split, and its places among them."""
        sample = draw_order([example.id for example in examples], seed)[: stride.background]
        G = self.bank.get_gradients([examples[i] for i in sample], split)
        factors = self.bank.preconditioners[split]
        return Background.from_gradients(G, factors, np.ones(len(sample))), sample

    def fitted(
        self, examples: list[Example], stride: StrideConfig, seed: int
    ) -> NaturalGradientFit:
        """What `fit_natural_gradient` makes of these rows."""
        ids = tuple(example.id for example in examples)
        settings = resolve_settings(stride, self.depth, self.model.width, len(ids))
        features = compute_features(self.bank.get_views(examples))
        membership = draw_by_design(ids, features, settings, stride, seed)
        background, sample = self.background(examples, stride, seed)
        # All gradients are at hand: no row is passed over again.
        own = np.full(len(ids), -1)
        own[sample] = np.arange(len(sample))
        encoded = tuple(self.encoded[i] for i in ids)
        geometry = Geometry(
            basis=self.basis,
            preconditioner=self.preconditioner,
            background=background,
            known=np.arange(len(ids)),
            G=self.bank.get_gradients(examples),
            own=own,
        )
        sums = sum_subsets(self.model, encoded, membership, geometry, stride.token_budget)
        return NaturalGradientFit(
            settings=settings,
            model=self.model,
            encoder=self.encoder,
            ids=ids,
            operators=solve_operators(sums.G, self.preconditioner, self.basis, stride.shift),
            M=membership.matrix(),
            features=features,
            centre=sums.centre,
            spread=sums.spread,
            signs=np.ones(len(ids)),
            encoded=encoded,
            preconditioner=self.preconditioner,
        )

    def measured(
        self,
        examples: list[Example],
        questions: tuple[tuple[Query, ...], PreparedQueries],
        stride: StrideConfig,
        seed: int,
    ) -> tuple[MeasuredRows, list[LayerEffects]]:
        """What `fit_streamed` measures of these rows, at the first split and at the others."""
        prepared = questions[1]
        layers, spreads = [], []
        for split, G in enumerate((prepared.G, *prepared.further)):
            effects, centre, spread = self._measure_split(examples, G, stride, seed, split)
            features = compute_features(self.bank.get_views(examples, split))
            layers.append(LayerEffects(effects, centre, features))
            spreads.append(spread)
        first, *further = layers
        measured = MeasuredRows(
            queries=questions[0],
            effects=first.effects,
            centre=first.centre,
            spread=spreads[0],
            signs=np.ones(len(examples)),
            features=first.features,
        )
        return measured, further

    def _measure_split(
        self,
        examples: list[Example],
        G_q: torch.Tensor,
        stride: StrideConfig,
        seed: int,
        split: int,
    ) -> tuple[NDArray[np.float32], Array, Array]:
        """Effects (n, Q), centre and spread (n,) at a split."""
        background, sample = self.background(examples, stride, seed, split)
        queries = precondition_queries(self.bank.preconditioners[split], G_q)
        yardsticks = Yardsticks(self.bank.bases[split], background, queries)
        own = np.full(len(examples), -1)
        own[sample] = np.arange(len(sample))
        parts = []
        for start in range(0, len(examples), 256):
            some = slice(start, start + 256)
            G = self.bank.get_gradients(examples[some], split)
            parts.append(yardsticks.measure(G, torch.from_numpy(own[some])))
        effects, centre, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
        return effects, centre.astype(np.float64), spread.astype(np.float64)

    def questions(self, case: Case) -> tuple[tuple[Query, ...], PreparedQueries]:
        """The case's queries, ready to be measured."""
        return self.ask(case.sentinels)

    def ask(self, sentinels: Sequence[Sentinel]) -> tuple[tuple[Query, ...], PreparedQueries]:
        """Any sentinels' queries, ready to be measured; their gradients are kept on disk by the
        sentinel's texts.
        """
        parts = [self._asked(sentinel) for sentinel in sentinels]
        answers = tuple(answer for part in parts for answer in part.answers)
        combine = block_diag(*(part.combine for part in parts))
        further = zip(*(part.further for part in parts), strict=True)
        return build_queries(sentinels), PreparedQueries(
            answers,
            combine,
            torch.cat([part.G for part in parts]),
            torch.cat([part.states for part in parts]),
            tuple(map(torch.cat, further)),
        )

    def _asked(self, sentinel: Sentinel) -> PreparedQueries:
        answers = [
            self.encoder.encode(sentinel.add_answer(text))
            for text in (sentinel.forbidden, sentinel.reference)
            if text
        ]
        tokens = json.dumps(
            [(answer.input_ids.tolist(), answer.answer.tolist()) for answer in answers]
        )
        path = (
            CACHE
            / f"sentinels-{self.version}"
            / f"{hashlib.sha256(tokens.encode()).hexdigest()}.pt"
        )
        if not path.exists():
            space = QuerySpace(self.model, self.encoder, self.basis, self.bank.bases[1:])
            asked = prepare_queries(space, [sentinel], self.stride)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            combine = torch.from_numpy(asked.combine)
            torch.save((combine, asked.G, asked.further, asked.states), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        combine, G, further, states = torch.load(path, weights_only=True)
        return PreparedQueries(tuple(answers), combine.numpy(), G, states, further)

    def influence(
        self,
        examples: list[Example],
        questions: tuple[tuple[Query, ...], PreparedQueries],
        stride: StrideConfig,
        seed: int,
        over_all: bool = False,
    ) -> Influence:
        """What an audit recovers of these rows; `over_all`: as before the streamed pass, by one
        Gaussian process over all rows.
        """

        def get_gradients(rows: NDArray[np.int64]) -> torch.Tensor:
            return self.bank.get_gradients([examples[i] for i in rows.tolist()])

        if over_all or not measures_rows_alone(stride, len(examples)):
            fitted = self.fitted(examples, stride, seed)
            return recover_in_rounds(fitted, *questions, get_gradients, stride)[0]
        measured, further = self.measured(examples, questions, stride, seed)
        leaning, wording = self._measure_answers(examples, questions)
        return smooth_and_cross(
            measured,
            get_gradients,
            self.preconditioner,
            resolve_shortlist(stride, len(examples)),
            further=further,
            leaning=leaning,
            wording=wording,
        )

    def _measure_answers(
        self, examples: list[Example], questions: tuple[tuple[Query, ...], PreparedQueries]
    ) -> tuple[Array, Array]:
        """How far these rows lean to what the panels forbid, and how far they are worded like it."""
        queries, prepared = questions
        sentinels = list(dict.fromkeys(query.sentinel for query in queries))
        answers = AnswerStates.of_sentinels(sentinels, prepared.states)
        views = self.bank.get_views(examples, len(prepared.further))
        signs, panels = np.ones(len(examples)), list_panels(queries)
        return (
            compute_leaning(views, signs, answers, panels),
            compute_wording(count_answers(examples), signs, answers.answers, panels),
        )
