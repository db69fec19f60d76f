"""Peer attribution methods behind one interface, to be compared with STRIDE in the same run.

    python benchmarks/peers.py [--rows 40] [--queries 8] [--only tracin] [--model NAME]

runs every peer on demo rows, each in a process of its own, and prints seconds and peak memory.

A peer takes n rows and Q queries and returns scores (n, Q) by name of variant: how much training on
row i makes query q's answer likelier,
positive = likelier. Variants that share a pass over the rows come from one call. What a row's
gradient G_i is: `peer_gradients`.

    tfidf, bm25     cosine of TF-IDF vectors; BM25 of the query's words in the row
    hidden_states   cosine of hidden states after the last block; Hanawa et al., arXiv 2006.04528
    tracin          <G_i, G_q> and its cosine at the present weights; Pruthi et al., arXiv 2002.08484
    logra           <G_i, (F + damping)^-1 G_q>, all projected to rank x rank a layer; Choe et al., arXiv 2405.13954
    ekfac           <G_i, (F + damping)^-1 G_q>, F the eigenvalue-corrected Kronecker-factored Fisher; Grosse et al., arXiv 2308.03296
    ekfac_kronfluence   the same by the method's reference library, for comparison

Peers that judge a row by a whole panel (activation differences, probes, sentence vectors and more)
describe rows by vectors instead, and score from these: `peer_states`. Here only what describing
costs is measured.

"unit-norm" divides a row's scores by ||G_i||, "RelatIF" by sqrt(<G_i, (F + damping)^-1 G_i>)
(Barshan et al., arXiv 2003.11630).
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import torch
from peer_ekfac import ekfac, ekfac_kronfluence
from peer_gradients import (
    QUERY_TOKENS,
    TOKEN_BUDGET,
    Scores,
    covariances,
    drawn,
    eigenvectors,
    inner_products,
    layer_gradients,
    layer_sizes,
    over,
    visit_rows,
)
from peer_states import PANEL_PEERS, fold_pairs
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from poisonwatch.config import ModelConfig
from poisonwatch.datasets.demo import load_demo_examples
from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.pretrained import Pretrained, load_pretrained
from poisonwatch.run_directory.timing import StageClock
from poisonwatch.sentinels.sentinel import load_sentinels


def tfidf(rows: Sequence[str], queries: Sequence[str]) -> Scores:
    """Cosine of TF-IDF vectors with sublinear counts; texts are prompt and answer."""
    vectors = TfidfVectorizer(sublinear_tf=True).fit(rows)
    return {
        "TF-IDF": (vectors.transform(rows) @ vectors.transform(queries).T)
        .toarray()
        .astype(np.float64)
    }


def bm25(rows: Sequence[str], queries: Sequence[str]) -> Scores:
    """BM25 of a query's words in a row."""
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(list(rows), show_progress=False), show_progress=False)
    words = bm25s.tokenize(list(queries), show_progress=False, return_ids=False)
    return {
        "BM25": np.stack(
            [retriever.get_scores(query) if query else np.zeros(len(rows)) for query in words],
            axis=1,
        ).astype(np.float64)
    }


@torch.no_grad()
def hidden_states(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    layer: int | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> Scores:
    """Cosine of hidden states: those of the last token, and the mean over the answer's tokens.

    `layer` l means the states below block l; by default those after the last block, as the head
    sees them. A preference row's are those of its chosen conversation less those of its rejected
    one.
    """
    model = pretrained.model.eval()

    def vectors(encoded: Sequence[Encoded]) -> Tensor:
        found = torch.zeros(2, len(encoded), int(model.config.get_text_config().hidden_size))
        for batch in make_batches(encoded, token_budget, model.device):
            output = model.base_model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                use_cache=False,
                output_hidden_states=layer is not None,
            )
            z = (output.last_hidden_state if layer is None else output.hidden_states[layer]).float()
            last = batch.attention_mask.sum(dim=1) - 1
            answer = normalize(batch.answer.float(), p=1, dim=1)
            found[0, batch.rows] = fold_pairs(batch, z[torch.arange(len(z)), last]).cpu()
            found[1, batch.rows] = fold_pairs(batch, torch.einsum("btd,bt->bd", z, answer)).cpu()
        return normalize(found, dim=-1)

    last, answer = (vectors(rows) @ vectors(queries).mT).double().numpy()
    return {"hidden state, last token": last, "hidden state, answer tokens": answer}


def tracin(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    token_budget: int = TOKEN_BUDGET,
    query_tokens: int = QUERY_TOKENS,
) -> Scores:
    """Inner product and cosine of whole gradients at the present weights: TracIn with one
    checkpoint.
    """
    products = inner_products(pretrained, rows, queries, token_budget, query_tokens)
    (scores,) = products.scores
    return {
        "TracIn": scores,
        "TracIn, cosine": over(over(scores, products.rows).T, products.queries).T,
    }


Projections = Mapping[str, tuple[Tensor, Tensor]]
"""By layer: orthonormal columns for inputs (in, k) and for output gradients (out, k)."""


def random_projections(model: PreTrainedModel, rank: int, seed: int = 0) -> Projections:
    """Directions drawn at random, for every layer."""
    draw = torch.Generator().manual_seed(seed)

    def columns(width: int) -> Tensor:
        return torch.linalg.qr(torch.randn(width, min(rank, width), generator=draw))[0].to(
            model.device
        )

    return {
        name: (columns(sizes[0]), columns(sizes[1])) for name, sizes in layer_sizes(model).items()
    }


def principal_projections(
    pretrained: Pretrained, rows: Sequence[Encoded], rank: int, token_budget: int = TOKEN_BUDGET
) -> dict[str, tuple[Tensor, Tensor]]:
    """The leading eigenvectors of every layer's E[x x^T] and E[g g^T] over `rows`, true labels."""
    moments = covariances(pretrained, rows, token_budget)
    return {
        name: tuple(eigenvectors(C)[:, -rank:].contiguous() for C in pair)
        for name, pair in moments.items()
    }  # type: ignore[misc]


def projected_gradients(
    pretrained: Pretrained,
    encoded: Sequence[Encoded],
    projections: Projections,
    token_budget: int = TOKEN_BUDGET,
) -> dict[str, Tensor]:
    """P_out^T G_i P_in of every conversation, flattened: (n, k_out * k_in) by layer; of a
    preference row that of its chosen answer less that of its rejected one.
    """
    found = {
        name: torch.zeros(len(encoded), P_in.shape[1] * P_out.shape[1])
        for name, (P_in, P_out) in projections.items()
    }

    def project(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        P_in, P_out = projections[name]
        G = layer_gradients(x @ P_in, g @ P_out)
        found[name][batch.rows] = fold_pairs(batch, G).cpu()

    visit_rows(pretrained, encoded, token_budget, project)
    return found


def logra(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    rank: int = 8,
    damping: float = 0.1,
    principal: bool = False,
    principal_rows: int = 256,
    projections: Projections | None = None,
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
) -> Scores:
    """LoGra over all linear layers of the blocks: plain, unit-norm rows, RelatIF.

    F is the second moment of the rows' projected gradients, layer by layer, and `damping` relative
    to the mean of its diagonal. Directions are random, or with `principal` the leading ones of
    `principal_rows` rows drawn by seed.
    """
    if projections is None and principal:
        projections = principal_projections(
            pretrained, drawn(rows, principal_rows, seed), rank, token_budget
        )
    elif projections is None:
        projections = random_projections(pretrained.model, rank, seed)
    G, G_q = (
        projected_gradients(pretrained, side, projections, token_budget) for side in (rows, queries)
    )
    scores = torch.zeros(len(rows), len(queries), dtype=torch.float64)
    squares, own = torch.zeros(2, len(rows), dtype=torch.float64)
    for name in projections:
        g, q = G[name].double(), G_q[name].double()
        F = g.T @ g / len(g)
        lower = torch.linalg.cholesky(F + damping * F.diagonal().mean() * torch.eye(len(F)))
        scores += g @ torch.cholesky_solve(q.T, lower)
        squares += g.pow(2).sum(dim=1)
        own += torch.linalg.solve_triangular(lower, g.T, upper=False).pow(2).sum(dim=0)
    name = f"LoGra{', principal' if principal else ''}"
    plain = scores.numpy()
    lengths = {"unit-norm": squares.sqrt().numpy(), "RelatIF": own.sqrt().numpy()}
    return {name: plain} | {
        f"{name}, {kind}": over(plain, length) for kind, length in lengths.items()
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """A peer's `scores`, the wall-clock `seconds` and the `processor_seconds` they took, and the
    memory of a process that did nothing else.

    Processor seconds count all threads, and do not grow where other processes keep a busy machine's
    cores. `peak_memory_mb` is the largest resident memory, in MiB.
    """

    scores: Scores
    seconds: float
    processor_seconds: float
    peak_memory_mb: float

    def __iter__(self) -> Iterator[Any]:
        """`scores, seconds, peak_memory_mb = measured(...)`."""
        return iter((self.scores, self.seconds, self.peak_memory_mb))


def measured(peer: Callable[..., Any], *arguments: Any, **options: Any) -> Measured:
    """Run `peer(*arguments, **options)` in a fresh process, or the memory of whatever ran before
    would count as its own. Of a peer that describes rows, `scores` are its vectors.

    Everything must be picklable: a peer is a module's function, its options plain. Handing over a
    model is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.save((peer, arguments, options), Path(folder) / "call.pt")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure, Path(folder) / "call.pt", torch.get_num_threads()).result()


def _measure(call: Path, threads: int) -> Measured:
    torch.set_num_threads(threads)
    peer, arguments, options = torch.load(call, weights_only=False)  # written by measured() above
    clock, start = StageClock(), time.process_time()
    with clock.stage(str(peer)):
        scores = peer(*arguments, **options)
    return Measured(
        scores, clock.costs[0].seconds, time.process_time() - start, clock.costs[0].peak_memory_mb
    )


PEERS: dict[str, Callable[..., Scores]] = {
    "tfidf": tfidf,
    "bm25": bm25,
    "hidden_states": hidden_states,
    "tracin": tracin,
    "logra": logra,
    "logra_principal": partial(logra, principal=True),
    "ekfac": ekfac,
    "ekfac_kronfluence": ekfac_kronfluence,
}
# What audits of whole cases may be compared with; the lexical peers are there anyway.
CHOICES = (*(name for name in PEERS if name not in ("tfidf", "bm25")), *PANEL_PEERS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--queries", type=int, default=8)
    describing = [name for name, peer in PANEL_PEERS.items() if peer.describe]
    names = [*PEERS, *describing]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    pretrained = load_pretrained(ModelConfig(name=options.model))
    encoder = pretrained.make_encoder()
    examples = load_demo_examples()[: options.rows]
    with resources.as_file(
        resources.files("poisonwatch") / "datasets/demo_rows/sentinels.yaml"
    ) as path:
        sentinels = load_sentinels([str(path)])
    answers = [(s, answer) for s in sentinels for answer in (s.forbidden, s.reference) if answer][
        : options.queries
    ]
    rows = [encoder.encode_example(example) for example in examples]
    queries = [encoder.encode(sentinel.add_answer(answer)) for sentinel, answer in answers]
    row_texts = [f"{e.prompt} {e.response}" for e in examples]
    query_texts = [f"{sentinel.prompt} {answer}" for sentinel, answer in answers]
    print(
        f"{len(rows)} rows of {sum(map(len, rows))} tokens, {len(queries)} queries of {sum(map(len, queries))}"
    )
    print(
        f"{torch.get_num_threads()} threads\n\n| peer | seconds | processor seconds | peak memory, MiB |\n|---|---|---|---|"
    )
    for name in options.only:
        if name in PANEL_PEERS:
            peer = PANEL_PEERS[name]
            texts = peer.reads == "texts"
            cost = measured(
                peer.describe,
                *([row_texts + query_texts] if texts else [pretrained, rows + queries]),
            )
        else:
            texts = name in ("tfidf", "bm25")
            cost = measured(
                PEERS[name], *((row_texts, query_texts) if texts else (pretrained, rows, queries))
            )
        print(
            f"| {name} | {cost.seconds:.1f} | {cost.processor_seconds:.1f} | {cost.peak_memory_mb:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
