"""The table of what an audit takes."""

import pytest
from cost_cases import COST_CASES, make_audit, make_shape

from poisonwatch.stride.costs import (
    Costs,
    estimate_costs,
    format_bytes,
    format_count,
    render_costs,
)


@pytest.fixture(scope="module")
def costs() -> Costs:
    shape = make_shape(COST_CASES["blocks"].build())
    return estimate_costs(shape, make_audit(n=1_000_000, keeps_gradients=False, sketch=1024))


def test_the_table_names_every_part_within_80_columns(costs: Costs) -> None:
    """What is held, what lies on the disk, and what is computed."""
    lines = render_costs(costs)
    assert max(map(len, lines)) <= 80
    table = "\n".join(lines)
    for said in (
        "weights",
        "background",
        "most at once",
        "records on the disk",
        "with sketches of gradients",
        "all other rows",
        "evidence",
    ):
        assert said in table, said
    assert f"{costs.record_bytes:,} B a row" in table
    assert format_bytes(costs.memory.peak) in table


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (7, "7 "),
        (999, "999 "),
        (1000, "1.0 k"),
        (134_500_000, "134 M"),
        (999_700, "1.0 M"),
        (9.97e9, "10 G"),
        (3.2e15, "3.2 P"),
    ],
)
def test_numbers_are_as_short_as_an_estimate_is_good(count: float, said: str) -> None:
    """Two or three digits, and a unit."""
    assert format_count(count) == said
    assert format_bytes(count) == f"{said}B"
