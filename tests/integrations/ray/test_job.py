"""What workers read is what the driver holds, bit for bit."""

from pathlib import Path

import pytest
import torch
from spread import capture_work, load_tiny

from poisonwatch.errors import OperationError
from poisonwatch.examples import Example, Message
from poisonwatch.integrations.ray.job import (
    compute_digest,
    open_job_folder,
    read_meter,
    read_rows,
    write_job,
)
from poisonwatch.stride.streamed import ShardWork


@pytest.fixture(scope="module")
def work(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardWork:
    return capture_work(load_tiny(tiny_folder)[1], tmp_path_factory.mktemp("records"))


def test_rows_and_meter_come_back_as_they_were(work: ShardWork, tmp_path: Path) -> None:
    """Every row once, in the order of the shards, and every number."""
    packed = write_job(tmp_path, work)
    assert [shard.name for shard in packed] == [shard.name for shard in work.shards]
    for own, shard in zip(work.shards, packed, strict=True):
        assert read_rows(tmp_path, shard) == work.get_rows(own)
    parts = read_meter(tmp_path, torch.device("cpu"))
    # At each of the model's splits.
    assert len(parts.yardsticks) == 2
    for read, mine in zip(parts.yardsticks, work.meter.yardsticks, strict=True):
        assert torch.equal(read.basis.directions, mine.basis.directions)
        assert torch.equal(read.background.probes, mine.background.probes)
        assert torch.equal(read.queries, mine.queries)
    assert parts.token_budget == work.meter.token_budget
    assert parts.keep_gradients == work.meter.keep_gradients
    # Where an array begins can change the last digit of sums.
    assert parts.yardsticks[0].queries.data_ptr() % 64 == 0


def test_the_folder_goes_with_the_pass(tmp_path: Path) -> None:
    """Those of drivers that were killed go with the next pass; records stay."""
    (tmp_path / "records-000000.arrow").write_bytes(b"held")
    (tmp_path / "spread-killed").mkdir()
    with open_job_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        assert sorted(tmp_path.iterdir()) == [tmp_path / "records-000000.arrow", folder]
    assert [path.name for path in tmp_path.iterdir()] == ["records-000000.arrow"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """In one line."""
    with (
        pytest.raises(OperationError, match="cannot be written: No such file"),
        open_job_folder(tmp_path / "away"),
    ):
        pass


def test_the_digest_tells_rows_apart() -> None:
    """By all that the model reads, half surrogates included."""
    rows = []
    for text in ("one", "two", "\ud800"):
        rows.append(Example.from_messages([Message("user", text), Message("assistant", text)]))
    digests = {compute_digest([row]) for row in rows}
    digests.add(compute_digest(rows))
    digests.add(compute_digest(rows[::-1]))
    assert len(digests) == 5
