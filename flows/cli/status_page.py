"""How an audit stands, as a page of a terminal."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from poisonwatch.ledger.agreement import add_up
from poisonwatch.ledger.probe_looks import ProbeLook
from poisonwatch.liveness.liveness import TELLS_NOBODY, Liveness, tell_ago, write_moment
from poisonwatch.liveness.standing import GIGABYTE, Standing
from poisonwatch.text.display import make_visible
from poisonwatch.text.durations import tell_duration
from poisonwatch.text.words import plural

LABEL_WIDTH = 12
DIGITS = 12  # of a fingerprint
CHECKPOINTS_NAMED = 3
UNKNOWN = "not known: the ledger cannot be used"


def build_page(standing: Standing, target_names: Mapping[str, str]) -> list[str]:
    """The lines of the page; `target_names` are what alert targets are called, by their ids."""
    state = "all is well"
    if standing.troubles:
        state = f"{plural(len(standing.troubles), 'thing')} to look at"
    lines = [f"{standing.name}: {state}"]
    lines += [_write_line("!", trouble) for trouble in standing.troubles]
    parts = [
        *_describe_audits(standing),
        ("owed", _describe_owed(standing, target_names)),
        ("undecided", UNKNOWN if standing.undecided is None else plural(standing.undecided, "row")),
        *_describe_agreement(standing),
        *_describe_probes(standing),
        ("disk", _describe_disks(standing)),
        ("versions", _describe_versions(standing)),
        ("servers", _describe_servers(standing)),
    ]
    lines += [_write_line(label, text) for label, text in parts]
    return [make_visible(line) for line in lines]


def _write_line(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}"


def _describe_audits(standing: Standing) -> Iterator[tuple[str, str]]:
    liveness = standing.liveness
    if liveness is None:
        yield "last audit", UNKNOWN
        return
    yield "last audit", _describe_last(standing, liveness)
    yield "expected", describe_expectation(liveness)
    if liveness.expected is not None and not standing.tells:
        yield "told", TELLS_NOBODY
    if liveness.at_work_since is not None:
        yield "at work", f"an audit, since {tell_duration(liveness.now - liveness.at_work_since)}"
    if liveness.failed:
        since = "since the last one with results" if liveness.last else "and none with results yet"
        yield "failed", f"{plural(liveness.failed, 'audit')} {since}"


def _describe_last(standing: Standing, liveness: Liveness) -> str:
    if liveness.last is None:
        return "none with results"
    said = f"{liveness.last.audit_id}, {tell_ago(liveness.now - liveness.last.done)}"
    counts = standing.counts
    if counts:
        said += f": {plural(counts.get('new', 0), 'new row')}, {counts.get('flagged', 0)} flagged"
        # What is rejected is neither audited nor released.
        if counts.get("rejected"):
            said += f", {counts['rejected']} rejected"
    if standing.parts_failed:
        said += f", {plural(standing.parts_failed, 'part')} failed"
    return said


def describe_expectation(liveness: Liveness) -> str:
    """When audits are expected, and whether the next is late: "every 1 h; next by ..."."""
    if liveness.expected is None or liveness.due is None or liveness.late_from is None:
        return "nobody says when (schedule: in the audit file)"
    said = liveness.expected.schedule.describe()
    if liveness.is_overdue:
        late = tell_duration(liveness.now - liveness.due)
        return f"{said}; overdue since {write_moment(liveness.due)}, {late} ago"
    due, late_from = write_moment(liveness.due), write_moment(liveness.late_from)
    return f"{said}; next at {due}, late from {late_from}"


def _describe_owed(standing: Standing, target_names: Mapping[str, str]) -> str:
    if standing.owed is None:
        return UNKNOWN
    said = []
    for owed in standing.owed:
        tries = "once" if owed.attempts == 1 else f"{owed.attempts} times"
        to = target_names.get(owed.target, owed.target)
        said.append(f"{plural(owed.count, owed.kind)} to {to} (tried {tries})")
    return ", ".join(said) or "nothing"


def _describe_agreement(standing: Standing) -> Iterator[tuple[str, str]]:
    """How often two people said the same lately; nothing where no two spoke of the same rows."""
    months = standing.agreement
    if not months:
        return
    total = add_up(months)
    said = f"two people said the same of {total.same} of {plural(total.compared, 'row')}"
    by_month = ", ".join(f"{each.month} {each.share:.0%}" for each in months)
    yield "agreement", f"{said}, by month: {by_month}"


def _describe_probes(standing: Standing) -> Iterator[tuple[str, str]]:
    """What the last probe of a trained model found, which other models moved, how many wait, and
    which could not be probed; nothing where none was probed, and none is there.
    """
    if standing.waiting_checkpoints:
        waiting = plural(standing.waiting_checkpoints, "checkpoint")
        yield "unprobed", f"{waiting} that came after the last probe"
    if standing.probe_look is not None and standing.probe_look.failed:
        yield "not probed", _describe_failed(standing.probe_look)
    if not standing.probes:
        return
    last, *others = standing.probes
    ago = tell_ago(standing.at - datetime.fromisoformat(last.recorded_at))
    trained = f", trained on release {last.release[:DIGITS]}" if last.release else ""
    yield "last probe", f"checkpoint {last.checkpoint[:DIGITS]}{trained}, {ago}: {last.words}"
    moved = [probe.checkpoint[:DIGITS] for probe in others if probe.has_moved]
    if moved:
        named = ", ".join(moved[:CHECKPOINTS_NAMED])
        yield "", f"of {plural(len(others), 'other checkpoint')} {len(moved)} moved: {named}"


def _describe_failed(look: ProbeLook) -> str:
    """Which checkpoints the last look could not probe, and why."""
    count = plural(len(look.failed), "checkpoint")
    named = [f"{each.folder}: {each.problem}" for each in look.failed[:CHECKPOINTS_NAMED]]
    if len(look.failed) > len(named):
        named.append("...")
    return f"{count} that cannot be: {'; '.join(named)}"


def _describe_disks(standing: Standing) -> str:
    said = [
        f"{disk.free / GIGABYTE:,.1f} GB free for {disk.what} ({disk.folder})"
        for disk in standing.disks
    ]
    return ", ".join(said) or "not on this machine"


def _describe_versions(standing: Standing) -> str:
    said = [f"{name} {version}" for name, version in standing.versions.items() if version]
    return ", ".join(said)


def _describe_servers(standing: Standing) -> str:
    said = [f"{server.name} {server.problem or 'answers'}" for server in standing.servers]
    return ", ".join(said) or "none"
