"""Records of probes against themselves, and against the releases that they name."""

from collections.abc import Iterator

from sqlalchemy import Connection

from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.probes import PROBE, RELEASE
from poisonwatch.ledger.records import find_record, read_records


def check_probes(connection: Connection) -> Iterator[Difference]:
    """Records of probes on another checkpoint than they say, of a release that was none before
    them, or whose changes and limits do not come to what is said to have moved.
    """
    for record in read_records(connection, PROBE):
        said = record.statement.predicate
        name = f"probe {record.item}"
        if dict(record.statement.subjects) != {"checkpoint": said["checkpoint"]}:
            yield Difference(f"{name}: subject", "its checkpoint", "another")
        if said["release"] is not None:
            release = find_record(connection, RELEASE, said["release"])
            if release is None or release.number > record.number:
                yield Difference(f"{name}: its release", "one written before it", "none")
        for asked in (*said["asked"], *said.get("panels", ())):
            if asked["moved"] and not asked["change"] > asked["limit"]:
                what = asked.get("sentinel") or f"panel {asked['panel']}"
                yield Difference(f"{name}: {what}", "within its band", "moved")
