"""What libraries log of addresses reaches no log."""

import logging
from pathlib import Path

import pytest
from clusters import audit, settings
from notified import SECRET, delivered, three_rows
from servers import HttpReceiver, free_port

from poisonwatch.errors import OperationError
from poisonwatch.integrations.log_capture import NOISY_LOGGERS
from poisonwatch.ledger.ledger import Ledger


def test_no_secret_is_said_written_or_logged(
    ledger: Ledger,
    receiver: HttpReceiver,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused, unreachable and unusable addresses: the password, the token in the path and the
    variable's value are nowhere.
    """
    monkeypatch.setenv("ALERT_TOKEN", SECRET)
    receiver.answer = 403
    config = settings(
        f"json://ann:{SECRET}@{receiver.address}/{SECRET}?token={SECRET}",
        f"json://ann:${{ALERT_TOKEN}}@127.0.0.1:{free_port()}/${{ALERT_TOKEN}}",
        f"mailto://ann:{SECRET}@127.0.0.1:{free_port()}/?to=bob@example.org&from=ann@example.org",
        f"nonsense://{SECRET}",
        f"slack://{SECRET}/bad",
    )
    audit(ledger, tmp_path / "one", config, three_rows)
    for name in NOISY_LOGGERS:
        caplog.set_level(logging.DEBUG, logger=name)
    with caplog.at_level(logging.DEBUG), pytest.raises(OperationError) as raised:
        delivered(ledger, config)
    kinds = [
        "(json) answered 403",
        "(json) cannot be reached",
        "(mailto) cannot be reached",
        "(nonsense) is no Apprise URL",
        "(slack) is no",
    ]
    assert all(kind in str(raised.value) for kind in kinds)
    assert SECRET not in str(raised.value) + repr(raised.value.__context__)
    assert SECRET not in caplog.text
    ledger.engine.dispose()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
