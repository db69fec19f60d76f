"""The table of costs in the docs is what the formulas give."""

import costs
import pytest
from paths import ROOT

from poisonwatch.stride.costs import estimate_costs


def test_the_docs_hold_what_the_script_prints() -> None:
    """`python benchmarks/costs.py` writes both tables of docs/costs.md."""
    page = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    for table in (costs.render_memory(), costs.render_flops()):
        assert len(table) == 2 + len(costs.MODELS) * len(costs.ROWS)
        assert "\n".join(table) in page


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("135M", 134.5e6), ("1B", 1.236e9), ("8B", 8.03e9), ("70B", 70.55e9)],
)
def test_sizes_that_were_typed_in_come_to_the_published_parameters(
    name: str, parameters: float
) -> None:
    """Norms are left out."""
    (model,) = (model for of, model in costs.MODELS.items() if of.startswith(name))
    assert model.parameters == pytest.approx(parameters, rel=0.002)


def test_where_the_model_is_nothing_grows_with_the_rows() -> None:
    """From 100,000 rows to ten times as many: some more rows of the background are not trusted."""
    for model in costs.MODELS.values():
        few, many = (
            estimate_costs(model, costs.make_audit(model, n)).memory for n in costs.ROWS[1:]
        )
        assert many.model_peak == pytest.approx(few.model_peak, rel=0.01)
        assert many.records == 10 * few.records
