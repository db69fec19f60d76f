"""What the ledger remembers of the last look for trained checkpoints."""

from datetime import timedelta
from pathlib import Path

import pytest
from ledgers import NAME, sqlite_ledger
from silent import HOUR, NOON
from sqlalchemy import func, select

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notice_tables import probe_looks
from poisonwatch.ledger.probe_looks import FailedProbe, ProbeLook, find_look, record_look

FAILED = FailedProbe("/out/checkpoint-20", "the checkpoint has no tokenizer")


def test_each_look_takes_the_place_of_the_one_before(url: str) -> None:
    """Of its own name."""
    with Ledger.at(url) as ledger:
        record_look(ledger, NAME, [FAILED], NOON)
        record_look(ledger, "other", [], NOON)
        with ledger.read() as connection:
            assert find_look(connection, NAME) == ProbeLook(NOON, (FAILED,))
        record_look(ledger, NAME, [], NOON + HOUR)
        with ledger.read() as connection:
            assert find_look(connection, NAME) == ProbeLook(NOON + HOUR, ())
            assert find_look(connection, "nobody's") is None
            assert connection.scalar(select(func.count()).select_from(probe_looks)) == 2


@pytest.mark.parametrize("text", ["", "null", "[1]", '[{"later": 1}]', "{}x"])
def test_a_look_of_a_later_version_is_none_to_this_one(tmp_path: Path, text: str) -> None:
    """And the next look of this one writes over it."""
    with sqlite_ledger(tmp_path) as ledger:
        values = {"name": NAME, "looked_at": NOON.isoformat(), "failed": text}
        with ledger.write() as connection:
            connection.execute(probe_looks.insert().values(values))
            assert find_look(connection, NAME) is None
        record_look(ledger, NAME, [FAILED], NOON + timedelta(minutes=1))
        with ledger.read() as connection:
            assert find_look(connection, NAME) is not None
