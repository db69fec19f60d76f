"""Metrics, as Prometheus reads them."""

from datetime import timedelta
from pathlib import Path

from ledgers import NAME
from silent import HOUR, NOON, add_audit, expecting, sqlite_ledger

from poisonwatch.ledger.schedules import ExpectedAudits
from poisonwatch.liveness.liveness import find_liveness
from poisonwatch.liveness.metrics import HELP, write_liveness_metrics, write_metrics
from poisonwatch.liveness.standing import Standing, gather_standing
from poisonwatch.schedule_config import ScheduleConfig


def read(text: str) -> dict[str, float]:
    """The samples of a text, by metric and labels; every metric says what it is, once."""
    samples = {}
    lines = text.splitlines()
    for line in lines:
        if not line.startswith("#"):
            metric, value = line.rsplit(" ", 1)
            samples[metric] = float(value)
            name = metric.partition("{")[0]
            assert lines.count(f"# TYPE {name} gauge") == 1
    return samples


def test_metrics_say_when_audits_came_and_that_they_do_not(tmp_path: Path) -> None:
    """In seconds since 1970, and 0 or 1."""
    with sqlite_ledger(tmp_path) as ledger:
        add_audit(ledger, NOON, NOON)
        expected = ExpectedAudits(NAME, ScheduleConfig(every=HOUR), NOON)
        late = find_liveness(ledger, NAME, expected, NOON + 2 * HOUR)
        samples = read(write_liveness_metrics([late]))
        config = expecting(ledger.url, tracking=f"sqlite:///{tmp_path / 'mlflow.db'}")
        standing = gather_standing(config, tmp_path / "a.yaml", {}, NOON, min_free=0)
    own = '{name="tiny"}'
    assert samples == {
        f"poisonwatch_audit_overdue{own}": 1,
        f"poisonwatch_audit_at_work{own}": 0,
        f"poisonwatch_failed_audits{own}": 0,
        f"poisonwatch_last_audit_timestamp_seconds{own}": NOON.timestamp(),
        f"poisonwatch_audit_late_from_timestamp_seconds{own}": (NOON + 1.5 * HOUR).timestamp(),
    }
    everything = read(write_metrics(standing))
    assert {metric.partition("{")[0] for metric in everything} == {
        f"poisonwatch_{name}" for name in HELP
    }
    assert everything['poisonwatch_server_answers{name="tiny",server="mlflow"}'] == 1


def test_what_is_not_known_is_left_out_and_names_are_quoted() -> None:
    """A name is the user's own."""
    standing = Standing(name='a"b\\c\nd', at=NOON + timedelta(days=1), troubles=["no ledger"])
    assert read(write_metrics(standing)) == {'poisonwatch_well{name="a\\"b\\\\c\\nd"}': 0}
