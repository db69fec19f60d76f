"""Secrets from the environment, or from files that it names."""

from pathlib import Path

import pytest

from poisonwatch.dashboards.secret_settings import MOST_BYTES, read_secret
from poisonwatch.errors import InputError

NAME = "POISONWATCH_TEST_SECRET"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.delenv(f"{NAME}_FILE", raising=False)


def test_a_secret_is_in_a_variable_or_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As editors and container platforms write one: with a line end, which is none of it."""
    assert read_secret(NAME) is None
    monkeypatch.setenv(NAME, " a secret\n")
    assert read_secret(NAME) == " a secret\n"
    monkeypatch.delenv(NAME)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    for content, secret in (
        (b"a: /@#?secret", "a: /@#?secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" secret \n\n", " secret \n"),
        (b"caf\xe9", "caf\udce9"),
        (b"", ""),
    ):
        (tmp_path / "secret").write_bytes(content)
        assert read_secret(NAME) == secret


def test_a_secret_that_cannot_be_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And never a part of it."""
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "hunter2"))
    with pytest.raises(InputError, match=f"{NAME}_FILE.* cannot be read") as refused:
        read_secret(NAME)
    assert "hunter2" not in str(refused.value)
    (tmp_path / "hunter2").write_bytes(b"hunter2" * MOST_BYTES)
    with pytest.raises(InputError, match="more than a secret") as refused:
        read_secret(NAME)
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv(NAME, "hunter2")
    with pytest.raises(InputError, match="leave one out") as refused:
        read_secret(NAME)
    assert "hunter2" not in str(refused.value)
