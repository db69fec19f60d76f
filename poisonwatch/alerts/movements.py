"""That a trained model moved, as a message: once a checkpoint and what it was asked.

It goes through the outbox like a notice of audits that do not come: put in with the record of the
probe, sent by whoever is alive.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from poisonwatch.alerts.markup import LONGEST_ALERT_NAME, neutralise_markup
from poisonwatch.alerts.targets import compute_short_digest
from poisonwatch.config import AuditConfig
from poisonwatch.ledger.notices import MOVED, Notice

MOST_NAMED = 5


def compose_moved(config: AuditConfig, report: Mapping[str, Any]) -> Notice | None:
    """What people are told of a probe, by its report; None where nothing moved."""
    moved: Sequence[str] = report["moved"]
    if not moved and not report["moved_panels"]:
        return None
    checkpoint, release = report["checkpoint"], report["release"]
    asked = (checkpoint["fingerprint"], report["sentinels"], release or "")
    key = compute_short_digest("\n".join((config.name, MOVED, *asked)))
    name = neutralise_markup(config.name)
    place = neutralise_markup(_keep_end(str(checkpoint.get("adapter") or checkpoint["name"])))
    names = [*(f"panel {panel}" for panel in report["moved_panels"]), *moved]
    named = ", ".join(neutralise_markup(each) for each in names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        named += f" and {len(names) - MOST_NAMED} more"
    trained_on = "Which release it was trained on was not said."
    if release is not None:
        trained_on = f"It was trained on the release {release[:12]}."
    lines = [
        f"{neutralise_markup(report['sentence'])}: {named}.",
        f"Checkpoint {checkpoint['fingerprint'][:12]}, {place}. {trained_on}",
        "Hold it back until somebody has looked. poisonwatch probe AUDIT.yaml --model CHECKPOINT "
        "shows what it answers, and names the command that finds the rows behind it.",
        f"Probe {report['probe_id']}. Alert {key}",
    ]
    return Notice(
        name=config.name,
        kind=MOVED,
        key=key,
        severity="high",
        title=f"Poisonwatch: a trained model of {name} moved",
        body="\n".join(lines),
    )


def _keep_end(path: str) -> str:
    """As much of a path as a message shows: its end, which tells checkpoints of one run apart."""
    if len(path) <= LONGEST_ALERT_NAME:
        return path
    return "…" + path[1 - LONGEST_ALERT_NAME :]
