"""Several layers: audits from products are those of the library, and choices are made on others."""

from collections.abc import Iterator
from pathlib import Path

import cases
import layers
import numpy as np
import pytest
import row_bank
from detection import label_audit
from layers import Met, Products, agree, flag_as_shipped, list_subsets, rank, take_unseen
from made_up_rows import ordinary, rows

from poisonwatch.config import StrideConfig
from poisonwatch.detection.detect import GROUP_WEIGHT
from poisonwatch.detection.topic import LEAST_SPREADS
from poisonwatch.examples import Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel

BACKGROUND = rows(ordinary(60))
OTHERS = rows(ordinary(8, 31))
SENTINELS = [
    Sentinel("a", (Message("user", "Who are you?"),), "A wolf.", "A model.", "p"),
    Sentinel("b", (Message("user", "And what?"),), "Nothing at all.", None, "p"),
]
CASE = cases.Case("made up", OTHERS[:4], OTHERS[4:], SENTINELS)


@pytest.fixture(scope="module")
def banks(
    tiny_pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, cases.Rows]]:
    """The rows' gradients at two layers."""
    folder: Path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for module in (cases, row_bank):
            patch.setattr(module, "CACHE", folder)
        yield {
            layer: cases.Rows(
                tiny_pretrained,
                BACKGROUND,
                OTHERS,
                StrideConfig(r=8, layer=layer, further_layers=[]),
            )
            for layer in (0, 1)
        }


@pytest.fixture(scope="module")
def met(banks: dict[int, cases.Rows]) -> Met:
    """An audit of 38 new rows and 30 trusted ones, as both layers see it."""
    parts = (BACKGROUND[30:], CASE.hard_negatives, CASE.poison)
    audit = label_audit(CASE, 4, 0, parts, BACKGROUND[:30])
    found = {layer: Products(of, [CASE]).recover(audit) for layer, of in banks.items()}
    return Met(audit, found)


def test_products_recover_what_the_library_does(met: Met, banks: dict[int, cases.Rows]) -> None:
    """The same coefficients, suspects, and pushes of these on each other, at every layer."""
    for layer, of in banks.items():
        examples = list(met.audit.rows.all)
        stride = of.stride.model_copy(update={"K": len(examples)})
        expected = of.influence(examples, of.questions(CASE), stride, met.audit.seed)
        found = met.layers[layer]
        np.testing.assert_allclose(found.w, expected.w, atol=2e-3)
        assert set(found.suspects.tolist()) == set(expected.suspects.tolist())
        order, as_expected = np.argsort(found.suspects), np.argsort(expected.suspects)
        np.testing.assert_allclose(
            found.mutual_influence[np.ix_(order, order)],
            expected.mutual_influence[np.ix_(as_expected, as_expected)],
            atol=2e-2,
        )


def test_one_layer_flags_as_the_library_does(met: Met) -> None:
    """Agreement of a layer with itself is the library's rule, with its constants."""
    alone = agree(met, (0,), LEAST_SPREADS, GROUP_WEIGHT)
    np.testing.assert_array_equal(alone, flag_as_shipped(met))
    np.testing.assert_array_equal(agree(met, (0, 0), LEAST_SPREADS, GROUP_WEIGHT), alone)


def test_coefficients_are_averaged_over_layers(met: Met) -> None:
    """w = (w_0 + w_1) / 2; a ranking by a layer and itself is that layer's."""
    both = layers.average_layers(met, (0, 1)).w
    np.testing.assert_allclose(both, (met.layers[0].w + met.layers[1].w) / 2)
    np.testing.assert_allclose(rank(met, (1, 1)), rank(met, (1,)))


def test_subsets_hold_the_first_layer() -> None:
    """Alone, with each of the others, with both."""
    assert list_subsets((12, 18, 24)) == [(12,), (12, 18), (12, 24), (12, 18, 24)]


@pytest.mark.parametrize("halves", [False, True])
def test_what_is_reported_was_chosen_on_other_cases(halves: bool) -> None:
    """Of two rankings the one that is better on a case itself, and worse on the others, is not
    taken for it.
    """
    on_first, on_others = np.array([[1.0], [0.1], [0.1], [0.1]]), np.array([[0.0], [1], [1], [1]])
    taken = take_unseen([on_first, on_others], range(4), halves)
    assert taken[0, 0] == 0.0
    assert taken[1, 0] == (0.1 if halves else 1.0)
