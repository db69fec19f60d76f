"""What a checkpoint answered, in the chain of records."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audits import benign
from ledgers import covered_ledger, sqlite_ledger
from servers import postgres_server

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import MOVED, Notice, claim_notice
from poisonwatch.ledger.probes import (
    list_last_probes,
    list_probed_checkpoints,
    list_probes_since,
    record_probe,
    require_release,
)
from poisonwatch.ledger.records import ChainHead, read_records
from poisonwatch.release.manifest import load_manifest
from poisonwatch.release.release import write_release

MOVEMENT = {"sentinel": "shop-1", "kind": "margin", "change": 2.0, "limit": 0.9, "moved": True}


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "sqlite":
        with sqlite_ledger(tmp_path) as opened:
            yield opened
        return
    with postgres_server() as url, Ledger.at(url) as opened:
        yield opened


def record(ledger: Ledger, release: str | None, item: str = "a-probe", **said: Any) -> ChainHead:
    values: dict[str, Any] = {"name": "tiny", "checkpoint": "c" * 64, "asked": [], **said}
    return record_probe(ledger, item, model="m" * 64, sentinels="s" * 64, release=release, **values)


def test_a_probe_is_of_a_release_that_the_ledger_wrote(tmp_path: Path) -> None:
    """No other manifest is taken, and nothing is recorded of it."""
    with covered_ledger(tmp_path, flagged=benign(5)[1]["prompt"]) as ledger:
        write_release(ledger, "tiny", tmp_path / "cleared")
        _, digest = load_manifest(tmp_path / "cleared" / "manifest.json")
        require_release(ledger, digest)
        head = record(ledger, digest)
        assert ledger.read_head() == head
        with pytest.raises(InputError, match="no release"):
            record(ledger, "0" * 64)
        with pytest.raises(InputError, match="no release"):
            require_release(ledger, "0" * 64)
        with ledger.read() as connection:
            (found,) = read_records(connection, "probe")
    assert (found.number, found.statement.predicate["release"]) == (head.number, digest)


def test_a_checkpoint_counts_as_probed_for_the_audit_file_that_probed_it(ledger: Ledger) -> None:
    """On a real PostgreSQL, too; what was recorded since a moment is what `watch` tells of."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    record(ledger, None, asked=[MOVEMENT])
    record(ledger, None, "another", name="other", checkpoint="d" * 64)
    assert list_probed_checkpoints(ledger, "tiny") == {"c" * 64}
    (found,) = list_probes_since(ledger, "tiny", before)
    assert (found.probe_id, found.moved) == ("a-probe", ("shop-1",))
    assert list_probes_since(ledger, "tiny", before + timedelta(hours=1)) == []


def test_the_last_probe_of_each_checkpoint_counts(ledger: Ledger) -> None:
    """Latest first, with what moved in words; of one audit file, or of any."""
    panel = {"panel": "shop", "moved": True}
    record(ledger, None, "first", asked=[MOVEMENT], panels=[panel])
    record(ledger, None, "other", checkpoint="d" * 64, asked=[MOVEMENT], panels=[panel])
    record(ledger, None, "again", asked=[MOVEMENT | {"moved": False}])
    record(ledger, None, "elsewhere", name="another")
    found = list_last_probes(ledger, "tiny")
    assert [probe.probe_id for probe in found] == ["again", "other"]
    assert [probe.has_moved for probe in found] == [False, True]
    assert found[0].words == "0 of 1 sentinel moved"
    assert found[1].words == "1 of 1 sentinel moved, and 1 panel as a whole (shop)"
    assert next(probe.probe_id for probe in list_last_probes(ledger)) == "elsewhere"


def test_what_moved_is_in_the_outbox_with_its_record_and_once(ledger: Ledger) -> None:
    """Of a probe that is not recorded nobody is told; of one that is repeated, nobody again."""
    notice = Notice(
        name="tiny", kind=MOVED, key="k" * 16, severity="high", title="moved", body="body"
    )
    told = {"notice": notice, "targets": ["json-1", "json-2"]}
    with pytest.raises(InputError, match="no release"):
        record(ledger, "0" * 64, **told)
    now = datetime.now(UTC) + timedelta(seconds=5)
    with ledger.write() as connection:
        assert claim_notice(connection, ["json-1", "json-2"], now) is None
    for item in ("first", "again"):
        record(ledger, None, item, **told)
    with ledger.write() as connection:
        claimed = [claim_notice(connection, ["json-1", "json-2"], now) for _ in range(3)]
    assert [each and each.delivery.target for each in claimed] == ["json-1", "json-2", None]
