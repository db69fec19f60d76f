"""What a status says of the target, and what of the message."""

import pytest

from poisonwatch.integrations.refusals import Cause, judge_status


@pytest.mark.parametrize(
    ("cause", "statuses"),
    [
        (Cause.BUSY, (408, 429, 500, 502, 503, 504)),
        (Cause.DENIED, (401, 403, 404, 407, 410)),
        (Cause.REFUSED, (400, 413, 414, 415, 422, 431)),
    ],
)
def test_a_status_is_of_the_target_or_of_the_message(
    cause: Cause, statuses: tuple[int, ...]
) -> None:
    """What is of the message alone may be given up."""
    assert {judge_status(status).cause for status in statuses} == {cause}


def test_a_pause_is_kept_where_it_means_something() -> None:
    """A target that asks for one is busy."""
    assert judge_status(429, 12.0).retry_after == 12.0
    assert judge_status(413, 12.0).retry_after is None
