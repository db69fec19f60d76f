"""Keys: made once, kept from others, never repeated in an error."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from poisonwatch.attestation.keys import (
    PublicKey,
    create_keys,
    parse_private_key,
    read_private_key,
    read_public_key,
    read_public_keys,
)
from poisonwatch.errors import ConfigError, InputError


def test_a_new_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, in a folder of 0700; the public one is for all."""
    made = create_keys(tmp_path / "keys")
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.private.parent.stat().st_mode) == 0o700
    assert read_public_key(made.public).id == made.id
    message = b"anything"
    signature = read_private_key(made.private).sign(message)
    assert read_public_key(made.public).verifies(signature, message)
    assert not read_public_key(made.public).verifies(signature, b"something else")


def test_openssl_reads_the_keys(tmp_path: Path) -> None:
    """PKCS#8 and SubjectPublicKeyInfo: the id is what `openssl` and `sha256sum` say it is."""
    made = create_keys(tmp_path / "keys")
    der = subprocess.run(
        ["openssl", "pkey", "-in", made.private, "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    digest = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout
    assert digest.split()[0].decode() == made.id


@pytest.mark.parametrize("name", ["poisonwatch.key", "poisonwatch.pub"])
def test_a_key_is_never_written_over(tmp_path: Path, name: str) -> None:
    """Nor what a dangling link leads to."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="never written over"):
        create_keys(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="never written over"):
        create_keys(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    made = create_keys(tmp_path / "keys")
    made.private.chmod(mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}.*chmod 600"):
        read_private_key(made.private)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_what_is_no_usable_key_is_named_and_not_repeated(tmp_path: Path) -> None:
    """Encrypted, of another kind, damaged, missing, or a name that is no path: one line each."""
    key = Ed25519PrivateKey.generate()
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"swordfish")
    )
    curve = ec.generate_private_key(ec.SECP256R1())
    plain = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    whole = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secret = whole.decode().splitlines()[1]
    cases = {
        "encrypted": encrypted,
        "another kind": plain,
        "holds no private key": b"-----BEGIN PRIVATE KEY-----\n" + secret[:-9].encode(),
    }
    for said, data in cases.items():
        with pytest.raises(ConfigError, match=said) as error:
            read_private_key(_write(tmp_path / "it.key", data))
        assert "\n" not in str(error.value)
        assert secret[:20] not in str(error.value)
    with pytest.raises(ConfigError, match="NAME holds no private key"):
        parse_private_key(b"swordfish", "NAME")
    for place in (tmp_path / "none.key", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_private_key(place)


def test_public_keys_are_ed25519_or_ecdsa_on_p256(tmp_path: Path) -> None:
    def write(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> Path:
        data = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return _write(tmp_path / "it.pub", data)

    assert isinstance(
        read_public_key(write(ec.generate_private_key(ec.SECP256R1()).public_key())), PublicKey
    )
    others = (
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    )
    for key in others:
        with pytest.raises(ConfigError, match="another kind"):
            read_public_key(write(key))


def test_a_private_key_in_place_of_a_public_one_is_told(tmp_path: Path) -> None:
    """And its text is not."""
    made = create_keys(tmp_path / "keys")
    with pytest.raises(ConfigError, match="is a private key") as error:
        read_public_key(made.private)
    assert made.private.read_text().splitlines()[1] not in str(error.value)
    with pytest.raises(ConfigError, match="no public key"):
        read_public_key(_write(tmp_path / "it.pub", b"swordfish"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_public_keys([made.public, tmp_path / "none.pub"])
    assert list(read_public_keys([made.public, made.public])) == [made.id]


def test_what_is_no_file_is_no_key_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a folder, a device."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_public_key(path)
        with pytest.raises(ConfigError, match="cannot be read"):
            read_private_key(path)
