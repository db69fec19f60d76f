"""Receivers of messages, and a ledger whose rows wait for an audit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import pulled
from servers import HttpReceiver, http_receiver

from poisonwatch.ledger.ledger import Ledger


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture
def other() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        yield opened
