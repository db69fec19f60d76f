"""Variables of the environment that settings in tests name."""

import pytest

VARIABLES = {
    "PW": "hunter2",
    "ODD": "p@ss/w:rd?",
    "FOLDER": "/data",
    "HOST": "db.example",
    "EMPTY": "",
}


def set_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set them; NOT_SET is none."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)
