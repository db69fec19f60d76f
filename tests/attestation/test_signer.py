"""Signers: a key at hand, or a command that asks for a signature."""

import shlex
import sys
import time
from pathlib import Path

import pytest
from signing import create_curve_keys, make_signer, sign_by_command

from poisonwatch.attestation.envelope import encode_for_signing, find_signers
from poisonwatch.attestation.keys import create_keys, read_private_key, read_public_key
from poisonwatch.attestation.signer import TRIAL_TYPE, CommandSigner, KeySigner
from poisonwatch.errors import ConfigError, SigningError

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'


def python(code: str) -> str:
    """A command that runs some Python."""
    return shlex.join([sys.executable, "-c", code])


@pytest.mark.parametrize("printed", ["raw", "base64"])
@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_command_signs_by_any_key_service(tmp_path: Path, kind: str, printed: str) -> None:
    """A real subprocess: Ed25519 or ECDSA, its signature as it is or in base64."""
    folder = tmp_path / "keys"
    private = create_curve_keys(folder) if kind == "p256" else create_keys(folder).private
    key = read_public_key(folder / "poisonwatch.pub")
    signer = CommandSigner(sign_by_command(private, printed), [key], 60)
    signer.try_out()
    assert find_signers(signer.sign(PAYLOAD), PAYLOAD, {key.id: key}) == {signer.key_id}


def test_what_is_signed_on_trial_is_no_statement(tmp_path: Path) -> None:
    """Whoever keeps that signature has one on nothing that is ever verified."""
    signer, key = make_signer(tmp_path / "keys")
    signer.try_out()
    trial = read_private_key(tmp_path / "keys" / "poisonwatch.key").sign(
        encode_for_signing(PAYLOAD, TRIAL_TYPE)
    )
    assert not key.verifies(trial, encode_for_signing(PAYLOAD))


def test_a_signature_of_another_key_is_refused_before_it_is_used(tmp_path: Path) -> None:
    """Rotated at the service and not here: told at once, and not by a gate weeks later."""
    theirs = create_keys(tmp_path / "theirs")
    _, key = make_signer(tmp_path / "ours")
    signer = CommandSigner(sign_by_command(theirs.private), [key], 60)
    for ask in (signer.try_out, lambda: signer.sign(PAYLOAD)):
        with pytest.raises(SigningError, match=f"no signature of the key {key.id[:16]}"):
            ask()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (python("import sys; sys.exit(7)"), "exit code 7"),
        (python("print('x' * 5000)"), "printed no signature"),
        (python("pass"), "printed no signature"),
        ("/no/such/program", "No such file"),
        ("/etc", "cannot be run"),
        ("true a\0b", "null byte"),
    ],
)
def test_a_command_that_fails_is_one_line(tmp_path: Path, command: str, said: str) -> None:
    _, key = make_signer(tmp_path / "keys")
    with pytest.raises(SigningError, match=said) as error:
        CommandSigner(command, [key], 60).sign(PAYLOAD)
    assert "\n" not in str(error.value)


def test_nothing_a_command_says_or_is_told_is_repeated(tmp_path: Path) -> None:
    """Neither its arguments nor its output: both may hold secrets."""
    _, key = make_signer(tmp_path / "keys")
    code = "import sys; print('hunter2'); print('hunter2', file=sys.stderr); sys.exit('hunter2')"
    with pytest.raises(SigningError) as error:
        CommandSigner(f"{python(code)} --password hunter2", [key], 60).sign(PAYLOAD)
    told = f"{error.value!r} {error.value.__cause__!r} {error.value.__context__!s:.0}"
    assert "hunter2" not in told


def test_a_command_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    _, key = make_signer(tmp_path / "keys")
    begun = time.monotonic()
    with pytest.raises(SigningError, match=r"within 0\.5 s"):
        CommandSigner(python("import time; time.sleep(600)"), [key], 0.5).sign(PAYLOAD)
    assert time.monotonic() - begun < 300


def test_a_command_needs_words_and_a_public_key(tmp_path: Path) -> None:
    _, key = make_signer(tmp_path / "keys")
    for nothing in ("", "  ", "'unclosed"):
        with pytest.raises(ConfigError, match="no command"):
            CommandSigner(nothing, [key], 60)
    with pytest.raises(ConfigError, match=r"signing\.public"):
        CommandSigner("true", [], 60)


def test_a_command_gets_no_shell(tmp_path: Path) -> None:
    """What an audit file says is a program with arguments, and nothing else."""
    _, key = make_signer(tmp_path / "keys")
    mark = tmp_path / "mark"
    with pytest.raises(SigningError):
        CommandSigner(f"true; touch {mark}", [key], 60).sign(PAYLOAD)
    assert not mark.exists()


def test_the_same_statement_has_the_same_signature(tmp_path: Path) -> None:
    """Ed25519 draws no random numbers."""
    signer, _ = make_signer(tmp_path / "keys")
    again = KeySigner(read_private_key(tmp_path / "keys" / "poisonwatch.key"))
    assert signer.sign(PAYLOAD) == again.sign(PAYLOAD)
