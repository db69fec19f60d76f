"""The commands `keys ...`."""

import stat
from pathlib import Path

import pytest
import yaml

from poisonwatch.config_file import resolve_config
from poisonwatch.flows.cli.app import main


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_init_makes_a_key_and_says_what_goes_into_the_audit_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints is YAML that signs; the private key is not printed; a second time it refuses."""
    folder = tmp_path / "keys"
    assert run("keys", "init", str(folder)) == 0
    printed = capsys.readouterr().out
    private = folder / "poisonwatch.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_text().splitlines()[1] not in printed
    lines = printed.splitlines()
    first = lines.index("  signing:")
    section = yaml.safe_load("\n".join(lines[first : first + 3]))
    config = resolve_config({"source": "rows", "sentinels": "pack:identity", **section}, tmp_path)
    signer = config.signing.load_signer()
    assert signer is not None
    assert f"key {signer.key_id[:16]}" in printed
    assert run("keys", "init", str(folder)) == 2
    assert "never written over" in capsys.readouterr().err
