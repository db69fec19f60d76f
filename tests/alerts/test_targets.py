"""Who is told: addresses, and what stands for them."""

import re

from clusters import settings

from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AlertConfig


def test_a_target_is_known_by_its_address_without_its_password() -> None:
    """A changed password is the same target; equal addresses are told apart; no id holds an
    address.
    """
    block = AlertConfig(block="slack-webhook/ops")
    one, two, three, four, five = list_targets(
        settings(
            "json://ann:one@host/x", "json://ann:one@host/x", "mailto://a:${PW}@h", block, "${URL}"
        )
    )
    (changed,) = list_targets(settings("json://ann:two@host/x"))
    assert changed.id == one.id
    assert two.id == f"{one.id}-2"
    assert [str(t) for t in (one, three, four, five)] == [
        "alerts[1] (json)",
        "alerts[3] (mailto)",
        "alerts[4] (block)",
        "alerts[5] (url)",
    ]
    assert len({t.id for t in (one, two, three, four, five)}) == 5
    assert all(
        re.fullmatch(r"(json|mailto|block|url)-[0-9a-f]{16}(-2)?", t.id)
        for t in (one, two, three, four, five)
    )
