"""Average precision on real attack cases, beside TF-IDF and BM25.

    python benchmarks/cases.py --data DIR [--poison 10] [--seeds 3]

DIR holds `background.jsonl` and a folder a case with `poison.jsonl`, `hard_negatives.jsonl` (rows of prompt and response) and
`sentinels.yaml`. A case is met as an audit would: background, hard negatives and some poison rows drawn by seed; no trusted rows.

Row gradients depend on the row, the model and the basis alone: they are computed once for all rows (`benchmarks/cache`, minutes), and every
audit is put together from them. Basis and Fisher factors are those of the background rows; `--whole` runs whole audits instead, each with
its own, for comparison (minutes a case).
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import average_precision_score

from poisonwatch.attribution import Fitted, Settings, fit, recover, recover_queries, sentinel_gradients
from poisonwatch.chat import ChatEncoder, batches
from poisonwatch.config import ModelConfig, StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.influence import Query, queries_of
from poisonwatch.membership import draw_membership
from poisonwatch.model import FrozenModel, decoder_blocks
from poisonwatch.operators import Moments, fit_basis, row_gradients, solve, unit_norm
from poisonwatch.pretrained import Pretrained, load_pretrained
from poisonwatch.scoring import pool, score
from poisonwatch.sentinels import Sentinel, load_sentinels

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
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Example.from_messages([Message("user", r["prompt"]), Message("assistant", r["response"])], str(path), i) for i, r in enumerate(rows)
    ]


def read_cases(data: Path) -> list[Case]:
    folders = sorted(path.parent for path in data.glob("*/poison.jsonl"))
    return [
        Case(f.name, read_rows(f / "poison.jsonl"), read_rows(f / "hard_negatives.jsonl"), load_sentinels([str(f / "sentinels.yaml")]))
        for f in folders
    ]


def audit_rows(background: list[Example], case: Case, poison: int, seed: int) -> tuple[list[Example], Array]:
    """The rows of one audit, each content once, and which of them are poison."""
    drawn = np.random.default_rng(seed).choice(len(case.poison), min(poison, len(case.poison)), replace=False)
    labelled = [(example, 0.0) for example in background + case.hard_negatives] + [(case.poison[i], 1.0) for i in drawn]
    unique = {example.id: (example, label) for example, label in labelled}
    return [example for example, _ in unique.values()], np.array([label for _, label in unique.values()])


class RowGradients:
    """c_i G_i of every row by id, with the basis and the Fisher sums of the background; kept on disk."""

    def __init__(self, pretrained: Pretrained, background: list[Example], others: list[Example], stride: StrideConfig) -> None:
        depth = len(decoder_blocks(pretrained.model))
        self.layer = stride.layer if stride.layer is not None else depth * 2 // 5
        self.model = FrozenModel(pretrained.model, self.layer)
        self.encoder = ChatEncoder(pretrained.tokenizer, stride.max_tokens)
        rows = list({example.id: example for example in background + others}.values())
        self.encoded = {example.id: self.encoder.encode(example.messages) for example in rows}
        self.place = {example.id: i for i, example in enumerate(rows)}
        path = CACHE / f"rows-{pretrained.fingerprint[:12]}-layer{self.layer}-r{stride.r}-n{len(rows)}.pt"
        start = time.perf_counter()
        of_background = [self.encoded[example.id] for example in background]
        self.basis = fit_basis(self.model, of_background[:256], stride.r, stride.token_budget)
        if not path.exists():
            CACHE.mkdir(exist_ok=True)
            torch.save(self._compute([self.encoded[example.id] for example in rows], len(of_background), stride), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        self.G, self.A, self.S, self.power, self.tokens = torch.load(path, weights_only=True)
        print(f"row gradients of {len(rows)} rows: {time.perf_counter() - start:.0f} s")

    def _compute(self, encoded: list, n_background: int, stride: StrideConfig) -> tuple:
        width = int(self.basis.directions.shape[0])
        moments = Moments.zeros(1, self.basis.r, width)
        G = torch.zeros(len(encoded), self.basis.r, width)
        for batch in batches(encoded[:n_background], stride.token_budget):
            G[batch.rows] = moments.add(self.basis, self.model.state_gradients(batch), torch.zeros(len(batch.rows), 1, dtype=torch.long))
        for batch in batches(encoded[n_background:], stride.token_budget):
            G[batch.rows + n_background] = unit_norm(row_gradients(self.basis, self.model.state_gradients(batch)))
        return G, moments.A, moments.S, moments.power, moments.tokens

    def fitted(self, examples: list[Example], stride: StrideConfig, share: float, d: int, seed: int) -> Fitted:
        """Operators of an audit with K = share * n subsets."""
        ids = tuple(example.id for example in examples)
        n = len(ids)
        K = max(d, round(share * n))
        membership = draw_membership(ids, K, d, seed)
        G = self.G[torch.tensor([self.place[i] for i in ids])]
        sums = torch.zeros(K, *G.shape[1:])
        for members in torch.from_numpy(membership.subsets).unbind(dim=1):
            sums.index_add_(0, members, G)
        operators = solve(Moments(self.A, self.S, sums, self.power, self.tokens), self.basis, stride.damping, stride.shift)
        order = np.random.default_rng(seed).permutation(n)
        settings = Settings(self.layer, self.basis.r, K, d, sums.numel() * 4)
        encoded = tuple(self.encoded[i] for i in ids)
        return Fitted(settings, self.model, self.encoder, encoded, membership, operators, ids, order, G[order], order[: stride.background])

    def of_sentinels(self, case: Case, stride: StrideConfig) -> tuple[tuple[Query, ...], torch.Tensor]:
        probe = self.fitted(case.poison[:2], stride, 1.0, 1, 0)
        queries = queries_of(case.sentinels)
        return queries, sentinel_gradients(probe, case.sentinels, queries, stride, lambda items, *_: items)


def by_tfidf(examples: list[Example], sentinels: list[Sentinel]) -> Array:
    rows, queries = _texts(examples, sentinels)
    vectors = TfidfVectorizer(sublinear_tf=True).fit(rows)
    similarity: Array = (vectors.transform(queries) @ vectors.transform(rows).T).toarray().mean(axis=0)
    return similarity


def by_bm25(examples: list[Example], sentinels: list[Sentinel]) -> Array:
    rows, queries = _texts(examples, sentinels)
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(rows, show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(queries, show_progress=False, return_ids=False)
    return np.mean([retriever.get_scores(query) for query in tokens], axis=0)


def _texts(examples: list[Example], sentinels: list[Sentinel]) -> tuple[list[str], list[str]]:
    return [f"{e.prompt} {e.response}" for e in examples], [f"{s.prompt} {s.forbidden or s.reference}" for s in sentinels]


def own_push(fitted: Fitted, queries: tuple[Query, ...], G_q: torch.Tensor, stride: StrideConfig) -> Array:
    """Coefficients pooled without background standardisation and kin: what DESIGN's prototype did."""
    influence = recover_queries(fitted, queries, G_q, stride)
    return pool(queries, influence.w).pooled.max(axis=1)


def audit_score(fitted: Fitted, queries: tuple[Query, ...], G_q: torch.Tensor, stride: StrideConfig) -> Array:
    """The score that an audit's flags follow."""
    largest: Array = score(recover_queries(fitted, queries, G_q, stride)).pooled.max(axis=1)
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default=ModelConfig().name)
    parser.add_argument("--whole", action="store_true", help="run whole audits, with their own basis and Fisher factors")
    options = parser.parse_args()
    stride = StrideConfig()
    background, cases = read_rows(options.data / "background.jsonl"), read_cases(options.data)
    pretrained = load_pretrained(ModelConfig(name=options.model))
    if options.whole:
        run_whole(pretrained, background, cases, options, stride)
        return
    gradients = RowGradients(pretrained, background, [e for case in cases for e in case.poison + case.hard_negatives], stride)
    table: dict[str, list[list[float]]] = {}
    for case in cases:
        queries, G_q = gradients.of_sentinels(case, stride)
        for seed in range(options.seeds):
            examples, labels = audit_rows(background, case, options.poison, seed)
            every_row = gradients.fitted(examples, stride, 1.0, 1, seed)
            scores = {"TF-IDF": by_tfidf(examples, case.sentinels), "BM25": by_bm25(examples, case.sentinels)}
            scores["coefficients pooled, K = n"] = own_push(every_row, queries, G_q, stride)
            scores["audit score, K = n (default)"] = audit_score(every_row, queries, G_q, stride)
            for share in (0.5, 0.25):
                some = gradients.fitted(examples, stride, share, 3, seed)
                sparse = stride.model_copy(update={"lasso": 0.05})
                scores[f"audit score, K = n/{round(1 / share)}, d = 3"] = audit_score(some, queries, G_q, sparse)
            for name, scored in scores.items():
                columns = table.setdefault(name, [[] for _ in cases])
                columns[cases.index(case)].append(average_precision_score(labels, scored))
    print(f"\naverage precision, {options.poison} poison rows, mean over {options.seeds} seeds")
    print("| scorer | " + " | ".join(case.name for case in cases) + " | mean |")
    print("|---|" + "---|" * (len(cases) + 1))
    for name, columns in table.items():
        means = [float(np.mean(column)) for column in columns]
        print(f"| {name} | " + " | ".join(f"{m:.2f}" for m in means) + f" | **{np.mean(means):.3f}** |")


def run_whole(
    pretrained: Pretrained, background: list[Example], cases: list[Case], options: argparse.Namespace, stride: StrideConfig
) -> None:
    """Whole audits, one line each; finished ones are kept in the cache and not run again."""
    CACHE.mkdir(exist_ok=True)
    done_file = CACHE / "whole.json"
    done: dict[str, float] = json.loads(done_file.read_text()) if done_file.exists() else {}
    for seed in range(options.seeds):
        for case in cases:
            key = f"{pretrained.fingerprint[:12]}/{case.name}/{options.poison}/{seed}"
            if key not in done:
                examples, labels = audit_rows(background, case, options.poison, seed)
                influence = recover(fit(pretrained, examples, stride, seed), case.sentinels, stride)
                done[key] = float(average_precision_score(labels, score(influence).pooled.max(axis=1)))
                done_file.write_text(json.dumps(done, indent=1))
            print(f"{case.name}, seed {seed}: average precision {done[key]:.3f}", flush=True)
    print(f"mean {np.mean([done[k] for k in done]):.3f}")


if __name__ == "__main__":
    main()
