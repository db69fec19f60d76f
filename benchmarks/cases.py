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
and pooled like STRIDE's own coefficients (`scoring.pool`).
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peers import PEERS, Measured, bm25, measured, tfidf
from scipy.linalg import block_diag
from sklearn.metrics import average_precision_score

from poisonwatch.arrays import Features
from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.encoding import ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel, find_decoder_blocks
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.sentinels.sentinel import Sentinel, load_sentinels
from poisonwatch.stride.background import Background
from poisonwatch.stride.designs import draw_by_design
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.influence import Influence, Query, build_queries
from poisonwatch.stride.natural_gradient import Geometry, sum_subsets
from poisonwatch.stride.operators import (
    Moments,
    Preconditioner,
    compute_row_gradients,
    fit_basis,
    solve_operators,
    unit_norm,
)
from poisonwatch.stride.queries import PreparedQueries, prepare_queries
from poisonwatch.stride.recover import recover_in_rounds
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.scoring import pool_scores, score_rows
from poisonwatch.stride.settings import resolve_settings
from poisonwatch.stride.similarity import compute_features, compute_views

Array = NDArray[np.float64]
CACHE = Path(__file__).parent / "cache"


@dataclass
class Case:
    """One attack: rows by kind, and what guards against it."""

    name: str
    poison: list[Example]
    hard_negatives: list[Example]
    sentinels: list[Sentinel]


def read_rows(path: Path) -> list[Example]:
    rows = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    return [
        Example.from_messages(
            [Message("user", r["prompt"]), Message("assistant", r["response"])], str(path), i
        )
        for i, r in enumerate(rows)
    ]


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
    """Gradients (unit-norm) and views of every row by id, with the basis and the Fisher factors of
    the background; kept on disk.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        background: list[Example],
        others: list[Example],
        stride: StrideConfig,
    ) -> None:
        self.pretrained, self.stride = pretrained, stride
        self.depth = len(find_decoder_blocks(pretrained.model))
        self.layer = stride.layer if stride.layer is not None else self.depth * 2 // 5
        self.model = FrozenModel(pretrained.model, self.layer)
        self.encoder = ChatEncoder(pretrained.tokenizer, stride.max_tokens)
        rows = list({example.id: example for example in background + others}.values())
        self.encoded = {example.id: self.encoder.encode_example(example) for example in rows}
        self.place = {example.id: i for i, example in enumerate(rows)}
        self.few = rows[:4]
        self.version = f"{pretrained.fingerprint[:12]}-layer{self.layer}-r{stride.r}-n{len(rows)}"
        path = CACHE / f"cases-{self.version}.pt"
        start = time.perf_counter()
        self.basis = fit_basis(
            self.model,
            [self.encoded[e.id] for e in background[:256]],
            stride.r,
            stride.token_budget,
        )
        if not path.exists():
            CACHE.mkdir(exist_ok=True)
            torch.save(
                self._compute([self.encoded[e.id] for e in rows], len(background), stride),
                path.with_suffix(".part"),
            )
            path.with_suffix(".part").rename(path)
        self.G, views, A, S, power, tokens = torch.load(path, weights_only=True)
        self.views: Features = views.numpy()
        self.preconditioner = Preconditioner(Moments(A, S, power, tokens), stride.damping)
        print(f"row gradients of {len(rows)} rows: {time.perf_counter() - start:.0f} s", flush=True)

    def _compute(self, encoded: list[Encoded], n_background: int, stride: StrideConfig) -> tuple:
        moments = Moments.zeros(self.basis.r, self.model.width)
        G = torch.zeros(len(encoded), self.basis.r, self.model.width)
        views = torch.zeros(len(encoded), 3, self.basis.r - 1)
        for part, offset in ((encoded[:n_background], 0), (encoded[n_background:], n_background)):
            for batch in make_batches(part, stride.token_budget):
                seen = self.model.compute_state_gradients(batch)
                if offset == 0:
                    moments.add(self.basis, seen)
                G[batch.rows + offset] = unit_norm(compute_row_gradients(self.basis, seen))
                views[batch.rows + offset] = torch.from_numpy(
                    compute_views(self.basis, seen.z, batch)
                )
        return G, views, moments.A, moments.S, moments.power, moments.tokens

    def places(self, examples: list[Example]) -> NDArray[np.int64]:
        return np.array([self.place[example.id] for example in examples])

    def fitted(
        self, examples: list[Example], stride: StrideConfig, seed: int
    ) -> NaturalGradientFit:
        """What `attribution.fit` makes of these rows."""
        ids = tuple(example.id for example in examples)
        settings = resolve_settings(stride, self.depth, self.model.width, len(ids))
        features = compute_features(self.views[self.places(examples)])
        membership = draw_by_design(ids, features, settings, stride, seed)
        every = np.arange(len(ids))
        sample = draw_order(ids, seed)[: stride.background]
        G = self.G[self.places(examples)]
        # All gradients are at hand: no row is passed over again.
        own = np.full(len(ids), -1)
        own[sample] = np.arange(len(sample))
        encoded = tuple(self.encoded[i] for i in ids)
        geometry = Geometry(
            basis=self.basis,
            preconditioner=self.preconditioner,
            background=Background.from_gradients(
                G[sample], self.preconditioner, np.ones(len(sample))
            ),
            known=every,
            G=G,
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
            asked = prepare_queries(self._fitted_to_few, [sentinel], self.stride)[1]
            path.parent.mkdir(exist_ok=True)
            torch.save((torch.from_numpy(asked.combine), asked.G), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        combine, G = torch.load(path, weights_only=True)
        return PreparedQueries(tuple(answers), combine.numpy(), G)

    @cached_property
    def _fitted_to_few(self) -> NaturalGradientFit:
        """Any fit: what is asked depends on the model and the basis alone."""
        return self.fitted(self.few, self.stride, 0)

    def influence(
        self,
        examples: list[Example],
        questions: tuple[tuple[Query, ...], PreparedQueries],
        stride: StrideConfig,
        seed: int,
    ) -> Influence:
        places = self.places(examples)
        return recover_in_rounds(
            self.fitted(examples, stride, seed),
            *questions,
            lambda rows: self.G[places[rows]],
            stride,
        )[0]


STRIDES = {
    "one subset a row (default)": {},
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
        influence = rows.influence(examples, asked, stride, seed)
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


class CasePeers:
    """Peers' scores of every row and every answer of every case; kept on disk with what they cost."""

    def __init__(self, rows: Rows, cases: list[Case], names: list[str]) -> None:
        self.places = rows.places
        sentinels = [s for case in cases for s in case.sentinels]
        conversations = {
            (s.id, kind): s.add_answer(text)
            for s in sentinels
            for kind, text in (("forbidden", s.forbidden), ("reference", s.reference))
            if text
        }
        self.column = {answer: i for i, answer in enumerate(conversations)}
        queries = [rows.encoder.encode(conversation) for conversation in conversations.values()]
        self.costs = {name: self._cost(name, rows, queries) for name in names}

    @staticmethod
    def _cost(name: str, rows: Rows, queries: list[Encoded]) -> Measured:
        path = (
            CACHE
            / f"cases-{name}-{rows.pretrained.fingerprint[:12]}-n{len(rows.place)}-q{len(queries)}.pt"
        )
        if not path.exists():
            torch.save(
                measured(PEERS[name], rows.pretrained, list(rows.encoded.values()), queries),
                path.with_suffix(".part"),
            )
            path.with_suffix(".part").rename(path)
        cost: Measured = torch.load(path, weights_only=False)  # written above
        print(
            f"{name}: {cost.processor_seconds:.0f} processor seconds, {cost.peak_memory_mb:.0f} MiB",
            flush=True,
        )
        return cost

    def scores(
        self, examples: list[Example], sentinels: list[Sentinel]
    ) -> Iterator[tuple[str, Array]]:
        """Scores (n,) of every variant of every peer, read in both ways."""
        queries = build_queries(sentinels)
        forbidden, other = np.zeros((2, len(self.column), len(queries)))
        for q, query in enumerate(queries):
            forbidden[
                self.column[
                    query.sentinel.id, "reference" if query.kind == "reference" else "forbidden"
                ],
                q,
            ] = 1.0
            if query.kind == "margin":
                other[self.column[query.sentinel.id, "reference"], q] = 1.0
        plain = [q for q, query in enumerate(queries) if query.kind != "margin"]
        for cost in self.costs.values():
            for name, matrix in cost.scores.items():
                own = matrix[self.places(examples)] @ (forbidden - other)
                yield name, own[:, plain].mean(axis=1)
                yield f"{name}, pooled as ours", pool_scores(queries, own).pooled.max(axis=1)


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
        choices=[name for name in PEERS if name not in ("tfidf", "bm25")],
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
