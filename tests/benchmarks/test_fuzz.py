"""What reads what others wrote: any bytes are read, or refused in one line."""

import pytest
from fuzz import TARGETS, check, make_inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 40  # of each; `benchmarks/fuzz.py` tries as many as there is time for


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused_in_one_line(name: str) -> None:
    """Files in order with some of their bytes changed, and bytes without order."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(make_inputs(TARGETS[name].seeds))
    def read_any(content: bytes) -> None:
        check(TARGETS[name], content)

    read_any()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_in_order_is_read(name: str) -> None:
    """Else nothing but refusals would be tried."""
    for content in TARGETS[name].seeds:
        TARGETS[name].read(content)


@given(st.data())
def test_inputs_are_near_to_what_is_in_order(data: st.DataObject) -> None:
    """As a reader would otherwise refuse them all by their first bytes."""
    content = data.draw(make_inputs([b"abcdefgh"]))
    assert isinstance(content, bytes)
    assert len(content) <= 2000 + 6 * 12 * 50
