"""What says more than gradients which rows are planted: states and words of answers beside them.

    python benchmarks/evidence.py --data DIR [--layers 12 24] [--seeds 3] [--only CASE ...]

Audits are those of `layers.py`, of rows that some audit draws. Beside what rows do to a panel's
answers stands, for each panel, how alike a row's answer is to the forbidden ones, and how unlike
the reference ones:

    states      cos(x_i - x, (C + ridge)^-1 (f - r)): x_i (k,) the mean coordinates of the row's
                answer tokens (the second of `similarity`'s views), x their mean and C their
                covariance over the audit's rows, f and r the means of the panel's forbidden and
                reference answers; x in the place of r where the panel has no reference
    words       mean cosine to the forbidden answers less that to the reference ones, of TF-IDF
                vectors of the answers' letters (three to five in a row, within words)

Each is standardised over the rows, clipped at MOST deviations, and added to the panel's score
before groups are raised. As a gate it is asked of flags: a row is flagged only where the two, as
they are before they are clipped, come to so many deviations together. Weights, spreads and gate
are chosen on some cases and reported on others, as in `generalisation.py`.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cases import Case, Rows, read_chosen
from detection import Audit, draw_audit, interval
from layers import (
    OTHERS,
    Array,
    Bools,
    Met,
    Products,
    average_cases,
    average_layers,
    flag_as_shipped,
    judge,
    measure_rule,
    print_line,
    take_unseen,
)
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.metrics import average_precision_score

from poisonwatch.config import DetectionConfig, ModelConfig, StrideConfig
from poisonwatch.detection.detect import GROUP_WEIGHT as EXCESS_WEIGHT
from poisonwatch.detection.significance import compute_p_values, compute_row_q_values
from poisonwatch.detection.topic import compute_excess
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.recovery.robust import compute_robust_z
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.scoring import GROUP_WEIGHT, pool_scores, raise_groups
from poisonwatch.stride.similarity import survey_views

# Of the three views of a row, that of its answer's tokens.
ANSWER_VIEW = 1
# The ridge on the covariance of states, in units of its mean diagonal.
RIDGE = 1.0
MOST = 4.0
# Weights of states and of words to choose from, and least deviations of both as a gate.
WEIGHTS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25))
SPREADS = (2.0, 2.5, 3.0, 3.5)
LEAST = (-np.inf, 0.0, 1.0, 2.0)


# Evidence


def score_states(rows: Array, forbidden: Array, reference: Array) -> Array:
    """The cosine (n,) of rows' answers (n, k), less their mean, with the direction from reference
    answers (R, k), R >= 0, to forbidden ones (S, k), whitened.
    """
    mean = rows.mean(axis=0)
    usual = mean
    if len(reference):
        usual = reference.mean(axis=0)
    C = np.cov(rows.T)
    ridge = RIDGE * np.trace(C) / len(C) * np.eye(len(C))
    direction = np.linalg.solve(C + ridge, forbidden.mean(axis=0) - usual)
    moves = rows - mean
    lengths = np.linalg.norm(moves, axis=1) * np.linalg.norm(direction)
    cosines: Array = moves @ direction / np.maximum(lengths, np.finfo(np.float64).tiny)
    return cosines


def count_letters(texts: Sequence[str]) -> csr_matrix:
    """How often letters come in a row, in texts (m,): sparse (m, buckets)."""
    counter = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), norm=None, alternate_sign=False
    )
    if not texts:
        return csr_matrix((0, counter.n_features))
    return counter.transform(texts)


def score_words(rows: csr_matrix, forbidden: csr_matrix, reference: csr_matrix) -> Array:
    """How much nearer rows' answers (n, buckets) are to forbidden answers (S, buckets) than to
    reference ones (R, buckets), R >= 0, by their letters: (n,).
    """
    weights = TfidfTransformer(sublinear_tf=True).fit(vstack([rows, forbidden, reference]))
    found = weights.transform(rows)
    nearer: Array = (found @ weights.transform(forbidden).T).toarray().mean(axis=1)
    if reference.shape[0]:
        nearer = nearer - (found @ weights.transform(reference).T).toarray().mean(axis=1)
    return nearer


def view_answers(rows: Rows, texts: Sequence[tuple[Sentinel, str]]) -> Array:
    """The answer view (m, k) of sentinels with an answer each."""
    encoded = [rows.encoder.encode(sentinel.add_answer(text)) for sentinel, text in texts]
    views = survey_views(rows.model, encoded, rows.basis, rows.stride.token_budget)
    return views[:, ANSWER_VIEW].astype(np.float64)


@dataclass(frozen=True)
class Seen:
    """An audit at each layer, and evidence beside it, in robust standard deviations: of `states`
    (n, P) at the last layer, and of `words` (n, P), of all rows and panels.
    """

    met: Met
    states: Array
    words: Array

    @property
    def audit(self) -> Audit:
        return self.met.audit


class Evidence:
    """The evidence of audits, by the rows' products at one layer."""

    def __init__(self, rows: Rows, products: Products, cases: Sequence[Case]) -> None:
        self.products = products
        self.letters = count_letters([row.response for row in rows.examples])
        self.views: dict[tuple[str, str, str], Array] = {}
        for case in cases:
            for panel, kind in itertools.product(_list_panels(case), ("forbidden", "reference")):
                texts = _list_answers(case, panel, kind)
                self.views[case.name, panel, kind] = np.empty((0, rows.basis.r - 1))
                if texts:
                    self.views[case.name, panel, kind] = view_answers(rows, texts)

    def collect(self, met: Met) -> Seen:
        """The audit with its evidence. A panel that forbids nothing has none: zeros."""
        audit = met.audit
        examples = audit.rows.all
        at = [self.products.place[row.id] for row in examples]
        answers = self.products.views[at, ANSWER_VIEW].astype(np.float64)
        panels = _list_panels(audit.case)
        states, words = (np.zeros((len(at), len(panels))) for _ in range(2))
        for j, panel in enumerate(panels):
            forbidden, reference = (
                self.views[audit.case.name, panel, kind] for kind in ("forbidden", "reference")
            )
            if len(forbidden):
                states[:, j] = score_states(answers, forbidden, reference)
                words[:, j] = score_words(
                    self.letters[at],
                    *(
                        count_letters([text for _, text in _list_answers(audit.case, panel, kind)])
                        for kind in ("forbidden", "reference")
                    ),
                )
        return Seen(met, compute_robust_z(states), compute_robust_z(words))


def _list_panels(case: Case) -> list[str]:
    return list(dict.fromkeys(sentinel.panel for sentinel in case.sentinels))


def _list_answers(case: Case, panel: str, kind: str) -> list[tuple[Sentinel, str]]:
    """A panel's sentinels with their answers of one kind, where they have one."""
    found = [(sentinel, getattr(sentinel, kind)) for sentinel in case.sentinels]
    return [(sentinel, text) for sentinel, text in found if text and sentinel.panel == panel]


# Ranking and rule


def add_evidence(seen: Seen, alone: Array, weights: tuple[float, float]) -> Array:
    """Scores (n, P) before groups are raised, with evidence of these weights added."""
    states, words = (np.clip(values, -MOST, MOST) for values in (seen.states, seen.words))
    return alone + weights[0] * states + weights[1] * words


def rank(seen: Seen, layers: Sequence[int], weights: tuple[float, float]) -> Array:
    """The new rows' scores (n,), the largest over panels, of coefficients averaged over layers."""
    influence = average_layers(seen.met, layers)
    alone = add_evidence(seen, pool_scores(influence.queries, influence.w), weights)
    new, _ = seen.audit.rows.split(raise_groups(alone, influence, GROUP_WEIGHT))
    highest: Array = new.max(axis=1)
    return highest


def measure_precision(seen: Seen, layers: Sequence[int], weights: tuple[float, float]) -> float:
    """Average precision of an audit's ranking."""
    return float(average_precision_score(seen.met.poison, rank(seen, layers, weights)))


@dataclass(frozen=True)
class Judged:
    """The new rows of an audit at the first layer: `p` (n, P) of what they score beyond the rows
    around them, that `in_spreads` (n, P) of theirs, and `evidence` (n, P), states and words added.
    """

    p: Array
    in_spreads: Array
    evidence: Array

    def flag(self, spreads: float, least: float) -> Bools:
        """The new rows (n,) that stand out by so many spreads, and whose evidence is `least`
        deviations at least.
        """
        passes = (self.in_spreads >= spreads) & (self.evidence >= least)
        q = compute_row_q_values(np.where(passes, self.p, 1.0))
        return np.asarray((q <= DetectionConfig().false_discovery_rate).any(axis=1))


def judge_rows(seen: Seen, weight: float) -> Judged:
    """The new rows of an audit, with `weight` times the states in their scores."""
    influence = next(iter(seen.met.layers.values()))
    alone = add_evidence(seen, pool_scores(influence.queries, influence.w), (weight, 0.0))
    excess = compute_excess(alone, influence.neighbours.rows)
    rows = seen.audit.rows
    new, trusted = rows.split(raise_groups(excess.beyond, influence, EXCESS_WEIGHT))
    p = [compute_p_values(new[:, j], trusted[:, j])[0] for j in range(new.shape[1])]
    return Judged(
        p=np.column_stack(p),
        in_spreads=rows.split(excess.in_spreads)[0],
        evidence=rows.split(seen.states + seen.words)[0],
    )


def find_ceiling(seen: Sequence[Seen], layers: Sequence[int], weights: tuple) -> Array:
    """Planted rows, of 10, that score above every honest row of the same audit without them: their
    share (C,) in each case.
    """
    highest = {}
    for one in seen:
        if not one.audit.count:
            key = one.audit.case.name, one.audit.seed
            highest[key] = rank(one, layers, weights).max()
    by_met = {id(one.met): one for one in seen if one.audit.count == 10}

    def value(met: Met) -> float:
        top = highest[met.audit.case.name, met.audit.seed]
        return float((rank(by_met[id(met)], layers, weights)[met.poison] > top).mean())

    return average_cases([one.met for one in by_met.values()], value)


# Tables


def print_ranking(seen: Sequence[Seen], names: Sequence[str], layers: Sequence[int]) -> None:
    planted = {id(one.met): one for one in seen if one.audit.count}
    met = [one.met for one in planted.values()]
    some = [i for i, name in enumerate(names) if name not in OTHERS]
    figures = {}
    for kind, weights in itertools.product(((layers[0],), tuple(layers)), WEIGHTS):

        def value(one: Met, kind: tuple = kind, weights: tuple = weights) -> float:
            return measure_precision(planted[id(one)], kind, weights)

        figures[kind, weights] = average_cases(met, value)[:, None]
    base = figures[tuple(layers), WEIGHTS[0]]
    print("\n| layers, weights of states and words | " + " | ".join(names), end="")
    print(" | mean of fourteen | less layers' alone |\n|" + "---|" * (len(names) + 3))
    for (kind, weights), found in figures.items():
        cells = " | ".join(f"{value:.2f}" for value in found[:, 0])
        difference = interval(list((found - base)[some, 0]))
        label = f"{kind}, {weights[0]:g} and {weights[1]:g}"
        print(f"| {label} | {cells} | {interval(list(found[some, 0]))} | {difference} |")
    for halves in (False, True):
        unseen = take_unseen(list(figures.values()), some, halves)
        label = "halves: *not seen*" if halves else "one case out: *not seen*"
        print_line(label, np.column_stack([unseen, unseen - base[some]]))


def print_rules(seen: Sequence[Seen], names: Sequence[str]) -> None:
    met = [one.met for one in seen]
    some = [i for i, name in enumerate(names) if name not in OTHERS]
    print(
        "\n| rule | recall of the flags | false-discovery share | false flags per 1,000 rows, "
        "nothing planted | recall, 10 planted |\n|---|---|---|---|---|"
    )
    print_line("as shipped", measure_rule(met, flag_as_shipped)[some])
    figures = {}
    for weight in (0.0, 0.5):
        judged = {id(one.met): judge_rows(one, weight) for one in seen}
        for spreads, least in itertools.product(SPREADS, LEAST):

            def flag(
                one: Met, judged: dict = judged, spreads: float = spreads, least: float = least
            ) -> Bools:
                return judged[id(one)].flag(spreads, least)

            figures[spreads, least, weight] = measure_rule(met, flag)
    without = [found for key, found in figures.items() if key[1:] == (LEAST[0], 0.0)]
    best = max(figures, key=lambda key: judge(figures[key][some]))
    print_line(f"spreads, least evidence, weight {best}: *chosen on*", figures[best][some])
    for label, candidates in (("spreads", without), ("all three", list(figures.values()))):
        for halves in (False, True):
            way = "halves" if halves else "one case out"
            unseen = take_unseen(candidates, some, halves)
            print_line(f"{label}, {way}: *not seen*", unseen)


def print_ceilings(seen: Sequence[Seen], names: Sequence[str], layers: Sequence[int]) -> None:
    some = [i for i, name in enumerate(names) if name not in OTHERS]
    print("\nPlanted rows (of 10) that score above every honest row of the audit without them:\n")
    print(
        "| weights | " + " | ".join(names) + " | mean of fourteen |\n|" + "---|" * (len(names) + 2)
    )
    for kind, weights in itertools.product(
        ((layers[0],), tuple(layers)), (WEIGHTS[0], WEIGHTS[-1])
    ):
        found = find_ceiling(seen, kind, weights)
        cells = " | ".join(f"{value:.2f}" for value in found)
        print(f"| {kind}, {weights} | {cells} | {interval(list(found[some]))} |")


def gather(
    model: str, layers: Sequence[int], background: list[Example], audits: Sequence[Audit]
) -> tuple[dict[int, Products], Evidence]:
    """Products at each layer of the rows that some audit draws, and the evidence at the last."""
    cases = list({audit.case.name: audit.case for audit in audits}.values())
    drawn = {row.id: row for audit in audits for row in audit.rows.new}
    pretrained = load_pretrained(ModelConfig(name=model))
    products = {}
    for layer in layers:
        rows = Rows(
            pretrained,
            background,
            list(drawn.values()),
            StrideConfig(layer=layer, further_layers=[]),
        )
        products[layer] = Products(rows, cases)
    return products, Evidence(rows, products[layers[-1]], cases)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="*", default=[12, 24])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="cases; all by default")
    parser.add_argument("--model", default=ModelConfig().name)
    options = parser.parse_args()
    background, cases = read_chosen(options.data, options.only)
    audits = []
    for case, seed, count in itertools.product(cases, range(options.seeds), (0, 10, 20)):
        audits.append(draw_audit(background, case, count, seed, domain=False))
    products, evidence = gather(options.model, options.layers, background, audits)
    seen = []
    for audit in audits:
        recovered = {layer: of.recover(audit) for layer, of in products.items()}
        seen.append(evidence.collect(Met(audit, recovered)))
    names = [case.name for case in cases]
    print_ranking(seen, names, options.layers)
    print_ceilings(seen, names, options.layers)
    print_rules(seen, names)


if __name__ == "__main__":
    main()
