"""The benchmark of discovery counts what it says, and its peers find what is plain to see."""

import numpy as np
from attributions import example
from cases import Case
from detection import BACKGROUND, HARD, POISON, Audit
from discovery import Ranked, assess
from discovery_peers import rank_activation, rank_hdbscan, rank_spectral

from poisonwatch.examples import AuditRows

KINDS = [POISON] * 10 + [HARD] * 6 + [BACKGROUND] * 24
ROWS = tuple(example(f"Question {i}?", "Yes.") for i in range(len(KINDS)))
AUDIT = Audit(Case("case", [], [], []), 10, 0, AuditRows(ROWS), np.array(KINDS))


def meet(*groups: list[int], q: float = 0.05) -> dict:
    ranked = Ranked(list(groups), [q] * len(groups))
    return vars(assess("finder", "unknown", AUDIT, ranked))


def test_a_group_is_the_poison_where_it_holds_half_of_it_and_little_else() -> None:
    """Seven of ten rows with two others: .78 pure. Four of ten are too few, five in ten too mixed."""
    met = meet([*range(7), 20, 21])
    assert (met["found"], met["passed"], met["half"], met["pure"]) == (True, True, True, True)
    assert round(met["purity"], 2) == 0.78
    few, mixed = meet([0, 1, 2, 3]), meet([*range(5), *range(20, 25)])
    assert (few["found"], few["half"], few["pure"]) == (False, False, True)
    assert (mixed["found"], mixed["half"], mixed["pure"]) == (False, True, False)


def test_the_eleventh_group_is_not_among_the_first_ten() -> None:
    others = [[k, k + 1] for k in range(20, 30)]
    assert not meet(*others, list(range(10)))["found"]
    assert meet(*others[1:], list(range(10)))["found"]


def test_groups_that_pass_are_counted_and_those_of_hard_negatives() -> None:
    met = meet(list(range(10, 16)), list(range(10)))
    assert (met["passing"], met["passing_hard"]) == (2, 1)
    assert meet(list(range(10)), q=0.5)["passing"] == 0
    # A peer without q-values passes nothing.
    assert meet(list(range(10)), q=float("nan"))["passed"] is False


def test_peers_find_rows_that_lie_together() -> None:
    """Ten new rows far from all others, among the first groups of each; of HDBSCAN the first."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(80, 20))
    features[:10] = 6.0 * np.eye(20)[0] + 0.1 * draw.normal(size=(10, 20))
    trusted = np.arange(80) >= 40
    planted = set(range(10))
    assert any(planted <= set(rows) for rows in rank_spectral(features, trusted, 10))
    assert any(planted == set(rows) for rows in rank_activation(features, trusted, 10))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    first = set(rank_hdbscan((unit @ unit.T).astype(np.float32), trusted)[0])
    assert planted <= first
    assert len(first) <= 14
