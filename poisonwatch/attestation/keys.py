"""Keys: pairs made by `poisonwatch keys init`, private ones read to sign with, public ones trusted.

A key's id is the SHA-256 of its public part (DER, SubjectPublicKeyInfo). Ours are Ed25519; the
public keys of a key service may be ECDSA on P-256 with SHA-256, too, which every service has.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from poisonwatch.errors import ConfigError, InputError
from poisonwatch.text.display import make_visible

PRIVATE_NAME = "poisonwatch.key"
PUBLIC_NAME = "poisonwatch.pub"
SHOWN_DIGITS = 16  # of a key's id, where people read it
MAX_KEY_BYTES = 16 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with."""

    id: str
    key: Ed25519PublicKey | EllipticCurvePublicKey

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature, of exactly this message."""
        try:
            if isinstance(self.key, Ed25519PublicKey):
                self.key.verify(signature, message)
            else:
                self.key.verify(signature, message, ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """A pair of keys that was made, and where."""

    private: Path
    public: Path
    id: str


def create_keys(folder: Path) -> KeyFiles:
    """Make a pair of keys in a folder: `poisonwatch.key`, which only its owner may read, and
    `poisonwatch.pub`. Raises InputError where either is there already.
    """
    private, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    for path in (private, public):
        if os.path.lexists(path):
            raise InputError(
                f"{make_visible(str(path))} is there already, and a key is never written over: "
                "choose another folder"
            )
    key = Ed25519PrivateKey.generate()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shared = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(private, secret, mode=0o600)
    _write_new(public, shared, mode=0o644)
    return KeyFiles(private, public, compute_key_id(key.public_key()))


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, to the disk itself. Raises FileExistsError."""
    # The mode from the start: a moment later somebody could have read it.
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def compute_key_id(key: Ed25519PublicKey | EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key, in hex."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def read_public_keys(paths: Iterable[str | Path]) -> dict[str, PublicKey]:
    """The public keys of these files, by their ids. Raises ConfigError where one holds none."""
    keys: dict[str, PublicKey] = {}
    for path in paths:
        key = read_public_key(Path(path))
        keys[key.id] = key
    return keys


def read_public_key(path: Path) -> PublicKey:
    """The public key of a PEM file. Raises ConfigError where there is none that can be used."""
    shown = make_visible(str(path))
    try:
        data, _ = _read_file(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the public key {shown} cannot be read ({_describe(error)}): "
            "`poisonwatch keys init FOLDER` makes one"
        ) from None
    if b"PRIVATE KEY" in data:
        raise ConfigError(
            f"{shown} is a private key, where a public one is to be: give the .pub file beside it, "
            "and keep this one to yourself"
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{shown} is no public key in PEM: give the file that `poisonwatch keys init` wrote"
        ) from None
    is_on_curve = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    if not isinstance(key, Ed25519PublicKey) and not is_on_curve:
        raise ConfigError(f"{shown} is a key of another kind: give one of Ed25519 or ECDSA P-256")
    assert isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey)
    return PublicKey(compute_key_id(key), key)


def read_private_key(path: Path, shown: str | None = None) -> Ed25519PrivateKey:
    """The private key of a PEM file, which errors call `shown`: where its name comes from the
    environment, that may be the key itself by mistake. Raises ConfigError where it is none, or
    others may read it.
    """
    shown = make_visible(shown or str(path))
    try:
        data, mode = _read_file(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"signing.key: {shown} cannot be read ({_describe(error)}): "
            "`poisonwatch keys init FOLDER` makes one"
        ) from None
    if mode & _OTHERS:
        raise ConfigError(
            f"signing.key: {shown} may be read by others than its owner (mode "
            f"{stat.S_IMODE(mode):04o}): run `chmod 600` on it, and make a new key if somebody "
            "could have"
        )
    return parse_private_key(data, shown)


def parse_private_key(data: bytes, place: str) -> Ed25519PrivateKey:
    """The private key of a text in PEM that is at `place`. Raises ConfigError where it is none; the
    text itself is never repeated.
    """
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise ConfigError(
            f"signing.key: the key in {place} is encrypted: give it decrypted, in a file that only "
            "you can read, or sign by a command"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"signing.key: {place} holds no private key in PEM: `poisonwatch keys init FOLDER` "
            "makes one"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"signing.key: the key in {place} is of another kind: give one of Ed25519, "
            "or sign by a command"
        )
    return key


def _read_file(path: Path) -> tuple[bytes, int]:
    """The beginning of a key's file, and its mode: of the file that is read, whatever its name
    leads to a moment later. A pipe, or a device, is no file: nobody waits for what comes out of it.
    Raises OSError, or ValueError where the path is none.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read(MAX_KEY_BYTES), mode


def _describe(error: Exception) -> str:
    # A path with a null byte in it is a ValueError.
    return getattr(error, "strerror", None) or "it is no path"
