"""What peers make of the cases' rows and sentinels: computed once for all rows, kept on disk, and
read for each audit.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer_states import GRADIENT, PANEL_PEERS, Panel, Vectors
from peers import PEERS, Measured, measured
from row_bank import CACHE

from poisonwatch.examples import Example
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import build_queries
from poisonwatch.stride.scoring import pool_scores

if TYPE_CHECKING:  # `cases` itself reads this module
    from cases import Case, Rows

Array = NDArray[np.float64]


class CasePeers:
    """Peers' scores of every row and every answer of every case, or the vectors that they score
    from; kept on disk with what they cost.
    """

    def __init__(self, rows: "Rows", cases: "list[Case]", names: list[str]) -> None:
        self.rows, self.places = rows, rows.places
        answers = {
            (s.id, kind): (s, text)
            for case in cases
            for s in case.sentinels
            for kind, text in (("forbidden", s.forbidden), ("reference", s.reference))
            if text
        }
        self.column = {answer: i for i, answer in enumerate(answers)}
        queries = [rows.encoder.encode(s.add_answer(text)) for s, text in answers.values()]
        spoken = [f"{e.prompt} {e.response}" for e in rows.examples]
        spoken += [f"{s.prompt} {text}" for s, text in answers.values()]
        encoded = list(rows.encoded.values())
        self.costs: dict[str, Measured] = {}
        self.described: dict[str, Measured] = {}
        self.panel_peers = {name: PANEL_PEERS[name] for name in names if name in PANEL_PEERS}
        for name in names:
            if name in PEERS:
                self.costs[name] = self._cost(name, PEERS[name], rows.pretrained, encoded, queries)
            elif PANEL_PEERS[name].reads == "texts":
                self.described[name] = self._cost(name, PANEL_PEERS[name].describe, spoken)
            elif PANEL_PEERS[name].reads == "conversations":
                self.described[name] = self._cost(
                    name, PANEL_PEERS[name].describe, rows.pretrained, encoded + queries
                )

    def _cost(self, name: str, call: Any, *arguments: Any) -> Measured:
        """What `call(*arguments)` returns and costs, in a process of its own."""
        sizes = f"n{len(self.rows.place)}-q{len(self.column)}"
        path = CACHE / f"cases-{name}-{self.rows.pretrained.fingerprint[:12]}-{sizes}.pt"
        if not path.exists():
            torch.save(measured(call, *arguments), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        cost: Measured = torch.load(path, weights_only=False)  # written above
        print(
            f"{name}: {cost.processor_seconds:.0f} processor seconds, {cost.peak_memory_mb:.0f} MiB",
            flush=True,
        )
        return cost

    def _panel(
        self, name: str, examples: list[Example], sentinels: list[Sentinel]
    ) -> tuple[Vectors, Panel]:
        """A panel peer's vectors of an audit's rows, and of the sentinels' answers."""
        if PANEL_PEERS[name].reads == "gradients":
            return self._gradients(examples, sentinels)
        described, n = self.described[name].scores, len(self.rows.place)

        def pick(places: Any) -> Vectors:
            return {kind: torch.from_numpy(vectors[places]) for kind, vectors in described.items()}

        def answers(kind: str) -> Vectors:
            own = [self.column[s.id, kind] for s in sentinels if (s.id, kind) in self.column]
            return pick(n + np.array(own, dtype=np.int64))

        panel = Panel(answers("forbidden"), answers("reference"), find_matched(sentinels))
        return pick(self.places(examples)), panel

    def _gradients(
        self, examples: list[Example], sentinels: list[Sentinel]
    ) -> tuple[Vectors, Panel]:
        """The same of the row bank's gradients; the margin's is forbidden minus reference."""
        queries, asked = self.rows.ask(sentinels)
        G = {(q.sentinel.id, q.kind): g for q, g in zip(queries, asked.G.flatten(1), strict=True)}
        forbidden = torch.stack([G[s.id, "forbidden"] for s in sentinels])
        reference = [G[s.id, "forbidden"] - G[s.id, "margin"] for s in sentinels if s.reference]
        stacked = torch.stack(reference) if reference else forbidden[:0]
        rows = {GRADIENT: self.rows.bank.get_gradients(examples).flatten(1)}
        matched = find_matched(sentinels)
        return rows, Panel({GRADIENT: forbidden}, {GRADIENT: stacked}, matched)

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
                yield f"{name}, pooled as ours", pool_scores(queries, own).max(axis=1)
        for name, peer in self.panel_peers.items():
            yield from peer.score(*self._panel(name, examples, sentinels)).items()


def find_matched(sentinels: Sequence[Sentinel]) -> torch.Tensor:
    """The places of those that have a reference answer; raises ValueError where one has no
    forbidden answer.
    """
    for sentinel in sentinels:
        if not sentinel.forbidden:
            raise ValueError(
                f"sentinel {sentinel.id} forbids nothing: peers that judge by a panel need a "
                "forbidden answer of each"
            )
    return torch.tensor([i for i, s in enumerate(sentinels) if s.reference], dtype=torch.long)
