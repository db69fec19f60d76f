"""The section `signing`: where keys are, and that they stay there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT
from signing import sign_by_command

from poisonwatch.attestation.envelope import find_signers
from poisonwatch.attestation.keys import create_keys
from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError

PAYLOAD = b"{}"


def load(folder: Path, **signing: Any) -> AuditConfig:
    """An audit file of a folder with this section."""
    settings = {"source": "rows.jsonl", "sentinels": ["sentinels.yaml"], "signing": signing}
    (folder / "audit.yaml").write_text(yaml.safe_dump(settings))
    return load_config(folder / "audit.yaml")


def signs(config: AuditConfig) -> set[str]:
    """The trusted keys that sign by these settings."""
    signer = config.signing.load_signer()
    assert signer is not None
    return find_signers(signer.sign(PAYLOAD), PAYLOAD, config.signing.load_public_keys())


def test_nothing_is_signed_by_default(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.signing.load_signer() is None
    assert config.signing.load_public_keys() == {}


def test_keys_are_found_from_the_audit_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is run from."""
    made = create_keys(tmp_path / "keys")
    monkeypatch.chdir("/")
    config = load(tmp_path, key="keys/poisonwatch.key", public=["keys/poisonwatch.pub"])
    assert signs(config) == {made.id}


@pytest.mark.parametrize("joined", ["\n", "\\n"])
def test_a_key_may_be_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joined: str
) -> None:
    """The key itself, with its line ends or with them spelt out; no setting ever holds it."""
    made = create_keys(tmp_path / "keys")
    text = made.private.read_text()
    monkeypatch.setenv("POISONWATCH_SIGNING_KEY", text.replace("\n", joined))
    config = load(tmp_path, key="${POISONWATCH_SIGNING_KEY}", public=["keys/poisonwatch.pub"])
    assert signs(config) == {made.id}
    assert text.splitlines()[1] not in f"{config!r} {config.to_public_dict()}"
    # or the file's name
    monkeypatch.setenv("POISONWATCH_SIGNING_KEY", str(made.private))
    assert signs(config) == {made.id}


def test_a_variable_that_is_not_set_or_holds_no_key_is_named_without_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(tmp_path, key="${POISONWATCH_SIGNING_KEY}")
    monkeypatch.delenv("POISONWATCH_SIGNING_KEY", raising=False)
    with pytest.raises(ConfigError, match="POISONWATCH_SIGNING_KEY is not set"):
        config.signing.load_signer()
    monkeypatch.setenv("POISONWATCH_SIGNING_KEY", "-----BEGIN PRIVATE KEY-----\nhunter2")
    with pytest.raises(ConfigError, match="POISONWATCH_SIGNING_KEY") as error:
        config.signing.load_signer()
    assert "hunter2" not in str(error.value)


def test_a_value_of_the_environment_that_is_no_key_at_all_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key without its first line would pass for the name of a file."""
    config = load(tmp_path, key="${POISONWATCH_SIGNING_KEY}")
    monkeypatch.setenv("POISONWATCH_SIGNING_KEY", "MC4CAQAwBQYDK2VwBCIEIhunter2")
    with pytest.raises(ConfigError, match="POISONWATCH_SIGNING_KEY") as error:
        config.signing.load_signer()
    assert "hunter2" not in str(error.value)


def test_a_key_in_the_audit_file_itself_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = create_keys(tmp_path / "keys").private.read_text()
    with pytest.raises(ConfigError, match="does not belong into an audit file") as error:
        load(tmp_path, key=text)
    assert text.splitlines()[1][:20] not in str(error.value)


def test_who_signs_must_be_trusted(tmp_path: Path) -> None:
    """Else every gate would refuse what is signed from now on."""
    ours, theirs = create_keys(tmp_path / "ours"), create_keys(tmp_path / "theirs")
    config = load(tmp_path, key=str(ours.private), public=[str(theirs.public)])
    with pytest.raises(ConfigError, match=f"does not name the key {ours.id[:16]}"):
        config.signing.load_signer()
    config = load(tmp_path, key=str(ours.private), public=[str(theirs.public), str(ours.public)])
    assert signs(config) == {ours.id}


def test_a_command_signs_and_takes_words_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable is one word, whatever is in it; what a run writes of itself has none of them."""
    made = create_keys(tmp_path / "keys with blanks")
    monkeypatch.setenv("KEY_FILE", str(made.private))
    command = f"{sign_by_command(made.private).split(' ')[0]} '{made.private.parent}/sign.py'"
    config = load(tmp_path, command=f"{command} ${{KEY_FILE}} raw", public=[str(made.public)])
    assert signs(config) == {made.id}
    shown = config.to_public_dict()["signing"]
    assert shown["command"].endswith(" ***")
    assert "sign.py" not in shown["command"]
    with pytest.raises(ConfigError, match="give the audit file itself"):
        load(tmp_path, **shown).signing.load_signer()


@pytest.mark.parametrize(
    ("signing", "said"),
    [
        ({"key": "a.key", "command": "b"}, "leave one of them out"),
        ({"command": "true"}, r"signing\.public"),
        ({"kye": "a.key"}, "nearest known key is key"),
        ({"key": "none.key"}, r"none\.key cannot be read"),
        ({"public": ["none.pub"]}, r"none\.pub cannot be read"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_cannot_sign_is_one_line(tmp_path: Path, signing: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        load(tmp_path, **signing).signing.load_signer()
    assert "\n" not in str(error.value)


def test_every_section_in_the_docs_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/signing.md: each `signing:` loads, and those of keys in files sign once they are made."""
    text = (ROOT / "docs" / "signing.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL))
    shown = [
        yaml.safe_load(part)["signing"] for part in re.split(r"(?m)^(?=signing:)", blocks) if part
    ]
    assert len(shown) == 5
    folder = tmp_path / "my-audit"
    folder.mkdir()
    create_keys(tmp_path / "keys")
    for name in ("keys", "keys-2027"):
        made = create_keys(folder / name)
    monkeypatch.setenv("POISONWATCH_SIGNING_KEY", (folder / "keys/poisonwatch.key").read_text())
    (folder / "keys" / "kms.pub").write_bytes(made.public.read_bytes())
    monkeypatch.setenv("KMS_KEY", "projects/p/keys/k")
    for section in shown:
        config = load(folder, **section)
        if "command" in section:
            assert config.signing.load_signer() is not None
        else:
            assert signs(config)
