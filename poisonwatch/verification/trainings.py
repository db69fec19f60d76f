"""Records of training runs: each is on the manifests that it says were named."""

from collections.abc import Iterator

from sqlalchemy import Connection

from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.records import read_records
from poisonwatch.release.trainings import TRAINING, name_manifest


def check_trainings(connection: Connection) -> Iterator[Difference]:
    """Records of training runs that are not on what they say."""
    for record in read_records(connection, TRAINING):
        said = record.statement.predicate
        subjects = {name_manifest(digest): digest for digest in said["manifests"]}
        name = f"record {record.number}"
        if dict(record.statement.subjects) != subjects:
            yield Difference(f"{name}: manifests", "those that it is on", "others")
        if record.item != said["training_run"]:
            yield Difference(f"{name}: training run", "the one that it is about", "another")
