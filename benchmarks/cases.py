"""Average precision on real attack cases: recovery alone and after re-scoring, beside peers.

    python benchmarks/cases.py --data DIR [--poison 10] [--seeds 3] [--only "K = n/2"] [--peers
    tracin logra ekfac]

DIR holds `background.jsonl` and a folder a case with `poison.jsonl`, `hard_negatives.jsonl` (rows
of prompt and response) and `sentinels.yaml`. A case is met as an audit would: background, hard
negatives and some poison rows drawn by seed; no trusted rows.

Row gradients and states depend on the row, the model and the basis alone: they are computed once
for all rows (`benchmarks/cache`, minutes), and every audit is put together from them; background,
memberships, measurement and recovery are each audit's own. Basis and Fisher factors are those of
the background rows.

A peer's scores of all rows and all sentinels' answers are computed once, too, in a process of its
own (EK-FAC: about an hour on one core). They are read in two ways: the mean over forbidden answers,
and pooled like STRIDE's own coefficients (`scoring.pool`). Peers that judge by a whole panel
(`peer_states`) score each audit from vectors of all rows.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from case_peers import CasePeers
from numpy.typing import NDArray
from peers import CHOICES, bm25, tfidf
from row_bank import CACHE, RowBank
from scipy.linalg import block_diag
from sklearn.metrics import average_precision_score

from poisonwatch.config import ModelConfig, StrideConfig
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
from poisonwatch.stride.measured import MeasuredRows, smooth_and_cross
from poisonwatch.stride.natural_gradient import sum_subsets
from poisonwatch.stride.operators import solve_operators
from poisonwatch.stride.queries import PreparedQueries, QuerySpace, prepare_queries
from poisonwatch.stride.recover import recover_in_rounds
from poisonwatch.stride.row_pass import Yardsticks, precondition_queries
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.scoring import score_rows
from poisonwatch.stride.settings import measures_rows_alone, resolve_settings, resolve_shortlist
from poisonwatch.stride.similarity import compute_features

Array = NDArray[np.float64]
# The default before the streamed pass.
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
    """The background and the cases of a folder; of the cases those that are named, if any are."""
    cases = read_cases(data)
    if only:
        cases = [case for case in cases if case.name in only]
    return read_rows(data / "background.jsonl"), cases


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

    def background(self, examples: list[Example], stride: StrideConfig, seed: int) -> tuple:
        """The background of an audit of these rows, and its places among them."""
        sample = draw_order([example.id for example in examples], seed)[: stride.background]
        G = self.bank.get_gradients([examples[i] for i in sample])
        return Background.from_gradients(G, self.preconditioner, np.ones(len(sample))), sample

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
    ) -> MeasuredRows:
        """What `fit_streamed` measures of these rows."""
        background, sample = self.background(examples, stride, seed)
        queries = precondition_queries(self.preconditioner, questions[1].G)
        yardsticks = Yardsticks(self.basis, background, queries)
        own = np.full(len(examples), -1)
        own[sample] = np.arange(len(sample))
        parts = []
        for start in range(0, len(examples), 256):
            some = slice(start, start + 256)
            G = self.bank.get_gradients(examples[some])
            parts.append(yardsticks.measure(G, torch.from_numpy(own[some])))
        effects, centre, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
        return MeasuredRows(
            queries=questions[0],
            effects=effects,
            centre=centre.astype(np.float64),
            spread=spread.astype(np.float64),
            signs=np.ones(len(examples)),
            features=compute_features(self.bank.get_views(examples)),
        )

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
        return build_queries(sentinels), PreparedQueries(
            answers, combine, torch.cat([part.G for part in parts])
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
            space = QuerySpace(self.model, self.encoder, self.basis)
            asked = prepare_queries(space, [sentinel], self.stride)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save((torch.from_numpy(asked.combine), asked.G), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        combine, G = torch.load(path, weights_only=True)
        return PreparedQueries(tuple(answers), combine.numpy(), G)

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
        measured = self.measured(examples, questions, stride, seed)
        shortlist = resolve_shortlist(stride, len(examples))
        return smooth_and_cross(measured, get_gradients, self.preconditioner, shortlist)


STRIDES = {
    "one subset a row (default)": {},
    OVER_ALL: {},
    "K = n/2": {"K": 0.5},
    "K = n/4": {"K": 0.25},
    "K = n/8": {"K": 0.125},
    "K = n/2, random subsets": {"K": 0.5, "design": "random"},
    "K = n/2, random subsets, Lasso (the paper's)": {
        "K": 0.5,
        "design": "random",
        "recovery": "lasso",
    },
}


def stride_scores(
    rows: Rows, examples: list[Example], seed: int, asked: tuple, only: list[str]
) -> Iterator[tuple[str, Array]]:
    """Scores (n,) of every setting: from recovery alone, and after re-scoring."""
    for name in only:
        changes = STRIDES[name]
        K = round(changes["K"] * len(examples)) if "K" in changes else None
        stride = rows.stride.model_copy(update=changes | {"K": K})
        influence = rows.influence(examples, asked, stride, seed, over_all=name == OVER_ALL)
        if K is not None:
            yield (
                f"STRIDE, {name}: recovery alone",
                score_rows(influence, rescored=False).pooled.max(axis=1),
            )
        yield (
            f"STRIDE, {name}" + (": re-scored" if K is not None else ""),
            score_rows(influence).pooled.max(axis=1),
        )


def texts(examples: list[Example], sentinels: list[Sentinel]) -> tuple[list[str], list[str]]:
    return [f"{e.prompt} {e.response}" for e in examples], [
        f"{s.prompt} {s.forbidden or s.reference}" for s in sentinels
    ]


def print_table(table: dict[str, list[list[float]]], names: list[str]) -> None:
    """One line a scorer: mean average precision a case and over all."""
    print("| scorer | " + " | ".join(names) + " | mean |\n|---|" + "---|" * (len(names) + 1))
    for name, columns in table.items():
        means = [float(np.mean(column)) for column in columns]
        print(
            f"| {name} | "
            + " | ".join(f"{m:.2f}" for m in means)
            + f" | **{np.mean(means):.3f}** |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", default=list(STRIDES), choices=list(STRIDES), help="settings of STRIDE"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        default=[],
        choices=CHOICES,
    )
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    background, cases = read_rows(options.data / "background.jsonl"), read_cases(options.data)
    pretrained = load_pretrained(ModelConfig(name=options.model))
    rows = Rows(
        pretrained,
        background,
        [e for case in cases for e in case.poison + case.hard_negatives],
        StrideConfig(),
    )
    others = CasePeers(rows, cases, options.peers)
    table: dict[str, list[list[float]]] = {}
    for place, case in enumerate(cases):
        asked = rows.questions(case)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            examples, labels = audit_rows(background, case, options.poison, seed)
            lexical = tfidf(*texts(examples, case.sentinels)) | bm25(
                *texts(examples, case.sentinels)
            )
            scored = [(name, matrix.mean(axis=1)) for name, matrix in lexical.items()]
            peers, ours = (
                others.scores(examples, case.sentinels),
                stride_scores(rows, examples, seed, asked, options.only),
            )
            for name, values in [*scored, *peers, *ours]:
                table.setdefault(name, [[] for _ in cases])[place].append(
                    average_precision_score(labels, values)
                )
    print(
        f"\naverage precision, {options.poison} poison rows, {options.seeds} seeds from {options.first_seed}"
    )
    print_table(table, [case.name for case in cases])


if __name__ == "__main__":
    main()
