"""What is muted is told to nobody, and everything else to whom it concerns."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HIGH, LOW, SUMMARY, audit, found, pulled, row, settings
from ledgers import NAME
from muting import audit_two_groups, days, flagged, muted
from tampering import verify

from poisonwatch.alert_config import WhenConfig
from poisonwatch.alerts.groups import describe_routing
from poisonwatch.alerts.messages import MOST_CLUSTERS, compose_messages
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import list_active_mutes
from poisonwatch.ledger.outbox import Alert, list_notified_ids, list_pending_alerts

ALERTS = settings("json://one")
HERE = Path("/runs/today")
SHOP = AlertConfig(url="json://shop", when=WhenConfig(source="shop.jsonl"), owner="shop team")
HIGHS = AlertConfig(url="json://highs", when=WhenConfig(severity="high"), owner="[security](x)")
REST = AlertConfig(url="json://rest")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        yield opened


def told(config: AuditConfig, attributed) -> list[Alert]:  # type: ignore[no-untyped-def]
    return compose_messages(config, SUMMARY, attributed, HERE, set())


def readers(alert: Alert, config: AuditConfig) -> list[str]:
    named = {target.id: str(target.setting.url) for target in list_targets(config)}
    return [named[id].removeprefix("json://") for id in alert.targets]


def waiting(ledger: Ledger) -> list[int]:
    """Of how many rows each message is that waits to be sent."""
    with ledger.read() as connection:
        notified = list_notified_ids(connection, NAME)
        return [len(list_pending_alerts(connection, NAME)), len(notified)]


def test_groups_go_to_whom_they_fit_and_name_their_owner() -> None:
    """One that fits two goes to both; one that fits nobody, to those without conditions."""
    config = settings(SHOP, HIGHS, REST)
    shop = [row(i, source="shop.jsonl") for i in range(2)]
    others, low = [row(i) for i in range(2, 4)], [row(i) for i in range(4, 6)]
    alerts = told(config, found([(HIGH, shop), (HIGH, others), (LOW, low)]))
    assert [readers(alert, config) for alert in alerts] == [["shop", "highs"], ["highs"], ["rest"]]
    assert "Owner: shop team, " in alerts[0].body
    assert "[security](" not in alerts[0].body
    assert "Owner:" not in alerts[2].body


def test_rows_in_no_group_are_told_of_by_what_they_are_themselves() -> None:
    """One panel, two sources, two digests."""
    config = settings(SHOP, REST)
    alerts = told(config, found([], alone=[row(0, source="shop.jsonl"), row(1), row(2)]))
    assert [(len(alert.example_ids), readers(alert, config)) for alert in alerts] == [
        (1, ["shop"]),
        (2, ["rest"]),
    ]
    assert "Owner: shop team" in alerts[0].body


def test_where_everybody_has_conditions_what_fits_nobody_goes_to_all() -> None:
    """Nothing is told to nobody."""
    config = settings(SHOP, HIGHS)
    (alert,) = told(config, found([(LOW, [row(0), row(1)])]))
    assert readers(alert, config) == ["shop", "highs"]


def test_each_target_has_its_own_gravest() -> None:
    """Those of others take none of its places."""
    config = settings(SHOP, REST)
    many = [(HIGH, [row(2 * i), row(2 * i + 1)]) for i in range(MOST_CLUSTERS + 1)]
    few = (LOW, [row(50, source="shop.jsonl"), row(51, source="shop.jsonl")])
    alerts = told(config, found([*many, few]))
    to_shop = [alert for alert in alerts if readers(alert, config) == ["shop"]]
    assert [alert.kind for alert in to_shop] == ["cluster"]
    assert [alert.kind for alert in alerts].count("digest") == 1


def test_nobody_is_told_of_what_is_muted(tmp_path: Path, ledger: Ledger) -> None:
    """Neither of rows that joined a muted group, nor of others on a muted panel: until it is
    graver.
    """
    audit_two_groups(ledger, tmp_path, ALERTS)
    assert waiting(ledger) == [2, 5]
    muted(ledger, "one/2")
    audit(ledger, tmp_path / "two", ALERTS, flagged((LOW, slice(4, 7))))
    assert waiting(ledger) == [2, 5]
    audit(ledger, tmp_path / "three", ALERTS, flagged((HIGH, slice(4, 7))))
    assert waiting(ledger) == [3, 6]
    assert verify(ledger).differences == []


def test_a_muted_panel_is_heard_again_where_it_is_graver(tmp_path: Path, ledger: Ledger) -> None:
    """Another group on it of the same severity is not told of, a high one is; and other panels
    are.
    """
    audit(ledger, tmp_path / "one", ALERTS, flagged((LOW, slice(0, 2))))
    muted(ledger, "panel:shop")
    audit(ledger, tmp_path / "two", ALERTS, flagged((LOW, slice(2, 4))))
    assert waiting(ledger) == [1, 2]
    audit(ledger, tmp_path / "three", ALERTS, flagged((HIGH, slice(4, 6))))
    assert waiting(ledger) == [2, 4]
    audit(ledger, tmp_path / "four", ALERTS, flagged((LOW, slice(6, 8)), panel="identity"))
    assert waiting(ledger) == [3, 6]


def test_the_summary_says_what_is_muted_and_whose_rows_are_whose(
    tmp_path: Path, ledger: Ledger
) -> None:
    """With how many rows nobody is told of."""
    audit_two_groups(ledger, tmp_path, ALERTS)
    mute = muted(ledger, "panel:shop", days(3))
    with ledger.read() as connection:
        mutes = list_active_mutes(connection, NAME)
    attributed = found([(HIGH, [row(0, source="shop.jsonl")])], alone=[row(1), row(2)])
    said = describe_routing(attributed, settings(SHOP, REST).alerts, mutes)
    assert said == {
        "muted": [{**mute.describe(), "rows": 3}],
        "owners": [{"owner": "shop team", "rows": 1}],
    }
