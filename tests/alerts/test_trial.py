"""A test message is as long as a message gets, and says that it is a test."""

from pathlib import Path

from clusters import found, row, settings
from notified import HOSTILE

from poisonwatch.alerts.fitting import MEASURES
from poisonwatch.alerts.messages import compose_messages
from poisonwatch.alerts.trial import make_trial_message


def test_it_is_as_long_as_a_real_one(tmp_path: Path) -> None:
    """Longer than that about twelve rows of a long file, of hostile text, in every unit."""
    config = settings("json://x", dashboard="https://audits.example.org")
    trial = make_trial_message(config)
    assert trial.title == "Poisonwatch: a test for tiny"
    assert trial.body.startswith("This is a test, sent by poisonwatch alert-test.")
    rows = [row(i, HOSTILE * 3, HOSTILE * 3) for i in range(12)]
    summary = {"audit_id": "one", "mlflow_run_id": None, "mlflow_experiment_id": None}
    (real,) = compose_messages(
        config, summary, found([(20.0, rows)], said=HOSTILE * 3), tmp_path, set()
    )
    for measure in MEASURES.values():
        assert measure(trial.body) > measure(real.body)


def test_two_of_them_are_two_incidents() -> None:
    """Each has a key of its own, and the least severity."""
    one, two = (make_trial_message(settings("json://x")) for _ in range(2))
    assert one.key != two.key
    assert one.severity == "low"
