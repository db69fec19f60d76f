"""What a target is sent in one run: what is young one by one, what is old as one digest."""

from datetime import UTC, datetime, timedelta

from clusters import settings

from poisonwatch.alerts.backlog import Patience, plan_parcels
from poisonwatch.ledger.outbox import ALERT_KIND, Delivery, PendingAlert

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
CONFIG = settings("json://x", dashboard="https://audits.example.org")
PATIENCE = Patience()


def alert(number: int, age: timedelta, severity: str = "medium", **more: object) -> PendingAlert:
    return PendingAlert(
        Delivery(ALERT_KIND, number, "json-1"),
        severity,
        f"Poisonwatch: {number} rows push panel shop in tiny",
        body=f"body {number}",
        key=f"{number:016x}",
        audit_id=f"audit-{number}",
        created_at=(NOW - age).isoformat(timespec="seconds"),
        **more,  # type: ignore[arg-type]
    )


def test_what_is_older_than_a_day_is_one_digest_that_names_each() -> None:
    """First, with the severity of the gravest; the young one follows on its own."""
    old = [alert(i, timedelta(hours=24 + 2 * i)) for i in range(22, 0, -1)]
    old.append(alert(23, timedelta(hours=30), "high"))
    young = alert(24, timedelta(hours=3))
    digest, single = plan_parcels([*old, young], CONFIG, NOW, PATIENCE)
    title = "Poisonwatch: 23 alerts of the last 3 days in tiny (severity high)"
    assert digest.message.title == title
    assert digest.message.severity == "high"
    assert all(pending.key in digest.message.body for pending in old)
    assert digest.alerts == tuple(old)
    assert (single.message.key, single.message.body) == (young.key, "body 24")
    assert single.message.link == "https://audits.example.org/audits/audit-24"


def test_the_same_alerts_make_the_same_digest() -> None:
    """One that is sent twice is known by its key; one more alert makes another."""
    old = [alert(i, timedelta(days=2)) for i in range(3)]
    (first,) = plan_parcels(old, CONFIG, NOW, PATIENCE)
    (again,) = plan_parcels(old, CONFIG, NOW + timedelta(hours=1), PATIENCE)
    (other,) = plan_parcels([*old, alert(9, timedelta(days=2))], CONFIG, NOW, PATIENCE)
    assert first.message.key == again.message.key != other.message.key


def test_one_old_alert_says_itself() -> None:
    """A digest of one would say less."""
    (parcel,) = plan_parcels([alert(1, timedelta(days=9))], CONFIG, NOW, PATIENCE)
    assert parcel.message.body == "body 1"


def test_a_refused_message_goes_alone_and_when_it_is_due() -> None:
    """Last, an hour after the last attempt at most; at once for whoever asks."""

    def refused(minutes: int) -> PendingAlert:
        tried = (NOW - timedelta(minutes=minutes)).isoformat(timespec="seconds")
        age = timedelta(days=2)
        return alert(1, age, attempts=9, tried_at=tried, refused_at=tried)

    others = [alert(i, timedelta(days=2)) for i in (2, 3)]
    plans = [
        plan_parcels([refused(59), *others], CONFIG, NOW, PATIENCE),
        plan_parcels([refused(60), *others], CONFIG, NOW, PATIENCE),
        plan_parcels([refused(59), *others], CONFIG, NOW, PATIENCE, at_once=True),
    ]
    assert [[len(parcel.alerts) for parcel in plan] for plan in plans] == [[2], [2, 1], [2, 1]]


def test_waits_double_to_an_hour() -> None:
    """However often a target failed."""
    waits = [PATIENCE.compute_wait(n) for n in (1, 2, 3, 7, 10_000)]
    assert [wait / timedelta(minutes=1) for wait in waits] == [1, 2, 4, 60, 60]
