"""Keys for tests, and commands that sign as a key service does."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from poisonwatch.attestation.keys import PublicKey, create_keys, read_private_key, read_public_key
from poisonwatch.attestation.signer import KeySigner, Signer
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.signing import list_unsigned, sign_records

# What a key service's client does: reads what is to be signed, prints the signature.
_SIGN = """
import base64, sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
how = [ec.ECDSA(hashes.SHA256())] if isinstance(key, ec.EllipticCurvePrivateKey) else []
made = key.sign(sys.stdin.buffer.read(), *how)
sys.stdout.buffer.write(base64.b64encode(made) + b"\\n" if sys.argv[2] == "base64" else made)
"""


def make_signer(folder: Path) -> tuple[KeySigner, PublicKey]:
    """A new key of a folder that signs, and its public part."""
    made = create_keys(folder)
    return KeySigner(read_private_key(made.private)), read_public_key(made.public)


def create_curve_keys(folder: Path) -> Path:
    """A pair of ECDSA keys on P-256, in files called as ours are; returns the private one's."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shared = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "poisonwatch.key").write_bytes(secret)
    (folder / "poisonwatch.pub").write_bytes(shared)
    return folder / "poisonwatch.key"


def sign_by_command(key: Path, printed: str = "raw") -> str:
    """A command that signs with a private key, printing the signature `raw` or in `base64`."""
    script = key.parent / "sign.py"
    script.write_text(_SIGN)
    return shlex.join([sys.executable, str(script), str(key), printed])


def sign_unsigned(ledger: Ledger, keys: Mapping[str, PublicKey], signer: Signer) -> int:
    """Vouch for every record that none of these keys signed: how many there were."""
    return sign_records(ledger, list_unsigned(ledger, keys), signer)
