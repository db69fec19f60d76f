"""Who signs: a private key in this process, or a command that asks a key service (KMS, HSM)."""

import base64
import binascii
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from poisonwatch.attestation.envelope import encode_for_signing, write_envelope
from poisonwatch.attestation.keys import SHOWN_DIGITS, PublicKey, compute_key_id
from poisonwatch.errors import ConfigError, SigningError

# A type that no statement has: what is signed on trial proves nothing to anybody.
TRIAL_TYPE = "application/vnd.poisonwatch.trial"
# An Ed25519 signature has 64 bytes, an ECDSA one on P-256 at most 72.
MAX_SIGNATURE_BYTES = 1024


class Signer(Protocol):
    """What signs statements."""

    @property
    def key_id(self) -> str:
        """The id of the key: SHA-256 of its public part, in hex."""

    def sign(self, payload: bytes) -> str:
        """A DSSE envelope of an in-toto statement, as JSON. Raises SigningError where no signature
        could be made.
        """

    def try_out(self) -> None:
        """Sign something that proves nothing, and check the signature. Raises SigningError."""


class KeySigner:
    """Signs with a private key that is in this process."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._key_id = compute_key_id(key.public_key())

    @property
    def key_id(self) -> str:
        """The key's id."""
        return self._key_id

    def sign(self, payload: bytes) -> str:
        """A DSSE envelope of a statement."""
        return write_envelope(payload, self.key_id, self._key.sign(encode_for_signing(payload)))

    def try_out(self) -> None:
        """Nothing to try: the key is at hand."""


class CommandSigner:
    """Signs by a command, which gets the bytes that are to be signed on its standard input, and
    prints the signature, as it is or in base64. It gets no shell.

    What it prints is checked with its public key before anybody relies on it.
    """

    def __init__(
        self,
        command: str,
        public: Sequence[PublicKey],
        timeout_s: float,
        expand: Callable[[str], str] = str,
    ) -> None:
        """`expand` puts the environment into each word. Raises ConfigError where the command is
        none, or no public key is given.
        """
        try:
            self._words = [expand(word) for word in shlex.split(command)]
        except ValueError:
            self._words = []
        if not self._words:
            raise ConfigError("signing.command: it is no command: give a program and its arguments")
        if not public:
            raise ConfigError(
                "signing.command: what it signs cannot be checked: name the file of its public key "
                "in signing.public"
            )
        self._public = public
        self._timeout_s = timeout_s
        self._program = self._words[0]

    @property
    def key_id(self) -> str:
        """The id of the key that is in use now: the first of the public ones."""
        return self._public[0].id

    def sign(self, payload: bytes) -> str:
        """A DSSE envelope of a statement. Raises SigningError where the command fails, or its
        signature is not the key's.
        """
        return write_envelope(payload, self.key_id, self._ask(encode_for_signing(payload)))

    def try_out(self) -> None:
        """Sign something that proves nothing. Raises SigningError."""
        self._ask(encode_for_signing(b"{}", TRIAL_TYPE))

    def _ask(self, message: bytes) -> bytes:
        """The command's signature of a message. Raises SigningError."""
        # What it says beside the signature may hold secrets of its own: it is not repeated.
        try:
            done = subprocess.run(
                self._words, input=message, capture_output=True, timeout=self._timeout_s, check=True
            )
        except subprocess.TimeoutExpired:
            raise self._complain(f"did not answer within {self._timeout_s:g} s") from None
        except subprocess.CalledProcessError as error:
            raise self._complain(f"ended with exit code {error.returncode}") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "its words hold a null byte"
            raise self._complain(f"cannot be run ({why})") from None
        for signature in _read_signatures(done.stdout):
            if self._public[0].verifies(signature, message):
                return signature
        raise self._complain(
            f"printed no signature of the key {self.key_id[:SHOWN_DIGITS]}, "
            "the first in signing.public"
        )

    def _complain(self, what: str) -> SigningError:
        return SigningError(
            f"signing.command: {self._program} {what}: run it by hand with the same environment"
        )


def _read_signatures(printed: bytes) -> list[bytes]:
    """What a command's output may be: the signature itself, or its base64."""
    if len(printed) > MAX_SIGNATURE_BYTES:
        return []
    found = [printed]
    with suppress(binascii.Error):
        found.append(base64.b64decode(b"".join(printed.split()), validate=True))
    return found
