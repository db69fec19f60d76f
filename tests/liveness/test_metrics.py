"""Metrics, as Prometheus reads them."""

from datetime import datetime, timedelta
from pathlib import Path

from ledgers import NAME, sqlite_ledger
from silent import HOUR, NOON, add_audit, expecting, leave_checkpoint

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import MOVED, Notice
from poisonwatch.ledger.probe_looks import FailedProbe, record_look
from poisonwatch.ledger.probes import list_last_probes, record_probe
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


def record(ledger: Ledger, letter: str, moved_panels: bool = False) -> None:
    """A probe of the checkpoint of this letter, and the message that it moved, if it did."""
    notice = Notice(
        name=NAME, kind=MOVED, key=letter * 16, severity="high", title="moved", body="body"
    )
    record_probe(
        ledger,
        f"probe-{letter}",
        name=NAME,
        checkpoint=letter * 64,
        model="m" * 64,
        sentinels="s" * 64,
        release=None,
        asked=[],
        panels=[{"panel": "shop", "moved": moved_panels}],
        notice=notice if moved_panels else None,
        targets=["json-1"],
    )


def test_metrics_say_when_audits_came_and_that_they_do_not(tmp_path: Path) -> None:
    """In seconds since 1970, and 0 or 1."""
    with sqlite_ledger(tmp_path) as ledger:
        add_audit(ledger, NOON, NOON)
        expected = ExpectedAudits(NAME, ScheduleConfig(every=HOUR), NOON)
        late = find_liveness(ledger, NAME, expected, NOON + 2 * HOUR)
        samples = read(write_liveness_metrics([late]))
        leave_checkpoint(tmp_path / "checkpoint-1", NOON)
        record(ledger, "a")
        record(ledger, "b", moved_panels=True)
        config = expecting(
            ledger.url,
            tracking=f"sqlite:///{tmp_path / 'mlflow.db'}",
            probe=str(tmp_path / "checkpoint-*"),
        )
        record_look(ledger, NAME, [FailedProbe("/out/checkpoint-2", "no tokenizer")], NOON)
        last = datetime.fromisoformat(list_last_probes(ledger, NAME)[0].recorded_at)
        targets = {"json-1": "a target"}
        standing = gather_standing(config, tmp_path / "a.yaml", targets, NOON, min_free=0)
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
    assert everything[f"poisonwatch_last_probe_timestamp_seconds{own}"] == last.timestamp()
    assert everything[f"poisonwatch_moved_checkpoints{own}"] == 1
    assert everything[f"poisonwatch_untold_movements{own}"] == 1
    assert everything[f"poisonwatch_probe_overdue{own}"] == 0
    assert everything[f"poisonwatch_failed_probes{own}"] == 1
    assert everything[f"poisonwatch_last_probe_look_timestamp_seconds{own}"] == NOON.timestamp()


def test_what_is_not_known_is_left_out_and_names_are_quoted() -> None:
    """A name is the user's own."""
    standing = Standing(name='a"b\\c\nd', at=NOON + timedelta(days=1), troubles=["no ledger"])
    assert read(write_metrics(standing)) == {'poisonwatch_well{name="a\\"b\\\\c\\nd"}': 0}
