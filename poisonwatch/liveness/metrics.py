"""How an audit stands, in Prometheus' text format: for scrapes of the dashboard, and for
node_exporter's textfile collector.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from poisonwatch.liveness.liveness import Liveness
from poisonwatch.liveness.standing import Standing

# Every metric is a gauge; its name follows `poisonwatch_`.
HELP = {
    "audit_overdue": "1 where audits do not come when they are expected",
    "audit_late_from_timestamp_seconds": "when the next audit is late",
    "last_audit_timestamp_seconds": "when the last audit came to its results",
    "audit_at_work": "1 while an audit is at work",
    "failed_audits": "audits since then that came to no results",
    "well": "1 where nothing needs a person, as poisonwatch status says",
    "undecided_rows": "flagged rows that nobody has decided on",
    "owed_deliveries": "messages and accounts that did not arrive yet",
    "last_probe_timestamp_seconds": "when a trained model was probed last",
    "moved_checkpoints": "trained models that moved, by the last probe of each",
    "untold_movements": "of trained models that moved, those not every alert target heard of",
    "probe_overdue": "1 where a new checkpoint waits for its probe, twice as long as probe.every",
    "last_probe_look_timestamp_seconds": "when new checkpoints were looked for last",
    "failed_probes": "checkpoints that this look could not probe",
    "disk_free_bytes": "the least free disk that the audit writes to",
    "server_answers": "1 where a server answers",
}
Samples = list[tuple[str, dict[str, str], float]]


def write_metrics(standing: Standing) -> str:
    """The metrics of a standing; what is not known is left out."""
    name = {"name": standing.name}
    samples: Samples = []
    if standing.liveness is not None:
        samples += _list_samples(standing.liveness)
    samples.append(("well", name, standing.is_well))
    if standing.undecided is not None:
        samples.append(("undecided_rows", name, standing.undecided))
    if standing.owed is not None:
        samples.append(("owed_deliveries", name, sum(owed.count for owed in standing.owed)))
    samples += _list_probe_samples(standing)
    if standing.disks:
        samples.append(("disk_free_bytes", name, min(disk.free for disk in standing.disks)))
    for server in standing.servers:
        labels = {**name, "server": server.name.lower()}
        samples.append(("server_answers", labels, not server.problem))
    return _write(samples)


def write_liveness_metrics(seen: Iterable[Liveness]) -> str:
    """The metrics of whether audits come."""
    samples: Samples = []
    for liveness in seen:
        samples += _list_samples(liveness)
    return _write(samples)


def _list_probe_samples(standing: Standing) -> Samples:
    """Of trained models: nothing where none was probed, and none is expected."""
    name = {"name": standing.name}
    samples: Samples = []
    if standing.probes:
        last = datetime.fromisoformat(standing.probes[0].recorded_at)
        samples.append(("last_probe_timestamp_seconds", name, last.timestamp()))
        samples.append(("moved_checkpoints", name, sum(p.has_moved for p in standing.probes)))
        samples.append(("untold_movements", name, standing.untold_movements or 0))
    if standing.waiting_checkpoints is not None:
        samples.append(("probe_overdue", name, standing.waiting_checkpoints > 0))
    if standing.probe_look is not None:
        looked_at = standing.probe_look.looked_at.timestamp()
        samples.append(("last_probe_look_timestamp_seconds", name, looked_at))
        samples.append(("failed_probes", name, len(standing.probe_look.failed)))
    return samples


def _list_samples(liveness: Liveness) -> Samples:
    name = {"name": liveness.name}
    samples: Samples = [
        ("audit_overdue", name, liveness.is_overdue),
        ("audit_at_work", name, liveness.at_work_since is not None),
        ("failed_audits", name, liveness.failed),
    ]
    if liveness.last is not None:
        samples.append(("last_audit_timestamp_seconds", name, liveness.last.done.timestamp()))
    if liveness.late_from is not None:
        late_from = liveness.late_from.timestamp()
        samples.append(("audit_late_from_timestamp_seconds", name, late_from))
    return samples


def _write(samples: Samples) -> str:
    lines = []
    for metric, about in HELP.items():
        of_metric = [(labels, value) for name, labels, value in samples if name == metric]
        if of_metric:
            lines.append(f"# HELP poisonwatch_{metric} {about}")
            lines.append(f"# TYPE poisonwatch_{metric} gauge")
        for labels, value in of_metric:
            lines.append(f"poisonwatch_{metric}{_write_labels(labels)} {float(value):.17g}")
    return "".join(f"{line}\n" for line in lines)


def _write_labels(labels: Mapping[str, str]) -> str:
    written = [f'{name}="{_escape(value)}"' for name, value in labels.items()]
    return f"{{{','.join(written)}}}"


def _escape(value: str) -> str:
    """As the format has it; a label is one line."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
