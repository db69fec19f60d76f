"""Addresses are looked at before anything runs."""

import pytest
from clusters import settings

from poisonwatch.config import AlertConfig
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.apprise.addresses import check_targets


def test_an_address_of_no_known_kind_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its number and kind, never by what it holds; blocks are the server's affair."""
    monkeypatch.setenv("SECRET_PLACE", "hunter2")
    check_targets(
        settings(
            "json://host/x",
            "mailto://ann:hunter2@example.org",
            AlertConfig(block="slack-webhook/ops"),
        )
    )
    with pytest.raises(ConfigError, match=r"alerts\[2\] \(foo\) is no Apprise URL") as error:
        check_targets(settings("json://host/x", "foo://${SECRET_PLACE}"))
    assert "hunter2" not in str(error.value)


def test_an_address_that_cannot_be_read_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Apprise would tell it whole, token and all."""
    with pytest.raises(ConfigError):
        check_targets(settings("foo://token-of-mine@host/x"))
    assert "token-of-mine" not in caplog.text
