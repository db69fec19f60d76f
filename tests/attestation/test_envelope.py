"""Envelopes: a signature counts for exactly what it was made on, and by whom."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
from signing import make_signer

from poisonwatch.attestation.envelope import encode_for_signing, find_signers, read_payload
from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.signer import KeySigner
from poisonwatch.errors import InputError

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'
Pair = tuple[KeySigner, PublicKey]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_signer(tmp_path_factory.mktemp("keys") / "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_signer(tmp_path_factory.mktemp("keys") / "other")


def test_what_is_signed_is_what_the_specification_says() -> None:
    """PAE(type, body), with the lengths in bytes: the specification's own example."""
    assert (
        encode_for_signing(b"hello world", "http://example.com/HelloWorld")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_signature_counts_for_its_key_alone(pair: Pair, other: Pair) -> None:
    signer, key = pair
    made = signer.sign(PAYLOAD)
    assert find_signers(made, PAYLOAD, {key.id: key}) == {signer.key_id}
    assert find_signers(made, PAYLOAD, {key.id: key, other[1].id: other[1]}) == {key.id}
    assert find_signers(made, PAYLOAD, {other[1].id: other[1]}) == set()
    assert read_payload(made) == PAYLOAD


def test_a_key_id_is_a_hint_that_nobody_believes(pair: Pair, other: Pair) -> None:
    """Another's id, or none, neither adds a signature nor takes one away."""
    keys = {key.id: key for _, key in (pair, other)}
    made = json.loads(pair[0].sign(PAYLOAD))
    made["signatures"][0]["keyid"] = other[1].id
    assert find_signers(json.dumps(made), PAYLOAD, keys) == set()
    for unknown in ("", "of nobody"):
        made["signatures"][0]["keyid"] = unknown
        assert find_signers(json.dumps(made), PAYLOAD, keys) == {pair[1].id}


def test_several_may_sign_one_statement(pair: Pair, other: Pair) -> None:
    keys = {key.id: key for _, key in (pair, other)}
    made = json.loads(pair[0].sign(PAYLOAD))
    made["signatures"] += json.loads(other[0].sign(PAYLOAD))["signatures"]
    assert find_signers(json.dumps(made), PAYLOAD, keys) == set(keys)


def _change(envelope: dict[str, Any], key: str, value: Any) -> str:
    return json.dumps(envelope | {key: value})


def test_any_change_takes_the_signature_away(pair: Pair) -> None:
    """Of the payload, its type, or the signature; and so does another payload than the one asked
    for.
    """
    signer, key = pair
    keys = {key.id: key}
    made = json.loads(signer.sign(PAYLOAD))
    changed = base64.b64encode(PAYLOAD + b" ").decode()
    assert find_signers(_change(made, "payload", changed), PAYLOAD + b" ", keys) == set()
    assert find_signers(_change(made, "payloadType", "text/plain"), PAYLOAD, keys) == set()
    assert find_signers(json.dumps(made), PAYLOAD + b" ", keys) == set()
    turned = bytearray(base64.b64decode(made["signatures"][0]["sig"]))
    turned[0] ^= 1
    signatures = [{"keyid": key.id, "sig": base64.b64encode(turned).decode()}]
    assert find_signers(_change(made, "signatures", signatures), PAYLOAD, keys) == set()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
FIELDS = st.sampled_from(["payload", "payloadType", "signatures", "sig", "keyid"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.text(max_size=60),
        JSON.map(json.dumps),
        st.dictionaries(FIELDS, JSON).map(
            lambda some: json.dumps({"payloadType": "application/vnd.in-toto+json"} | some)
        ),
    )
)
def test_whatever_is_no_envelope_has_no_signers(pair: Pair, text: str) -> None:
    """Any text: nobody signed it, and no other error than InputError is raised."""
    assert find_signers(text, PAYLOAD, {pair[1].id: pair[1]}) == set()
    try:
        assert isinstance(read_payload(text), bytes)
    except InputError:
        return


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"payload": "' + "A" * 7 + '"}', "", "null", "9" * 5000]
)
def test_hostile_envelopes_are_one_clear_error(text: str) -> None:
    with pytest.raises(InputError, match="DSSE"):
        read_payload(text)


def test_another_reader_of_dsse_verifies_what_is_signed_here(pair: Pair, other: Pair) -> None:
    """securesystemslib, the library of in-toto and TUF."""
    signer, key = pair

    def read(one: PublicKey) -> SSlibKey:
        assert not isinstance(one.key, type(None))
        return SSlibKey.from_crypto(one.key, keyid=one.id)

    envelope = Envelope.from_dict(json.loads(signer.sign(PAYLOAD)))
    assert envelope.payload == PAYLOAD
    assert set(envelope.verify([read(key)], 1)) == {key.id}
    with pytest.raises(VerificationError):
        envelope.verify([read(other[1])], 1)


def test_what_another_writer_of_dsse_signs_is_verified_here(tmp_path: Path) -> None:
    """The other way round, with a key of its own."""
    theirs = CryptoSigner.generate_ed25519()
    envelope = Envelope(PAYLOAD, "application/vnd.in-toto+json", {})
    envelope.sign(theirs)
    (tmp_path / "theirs.pub").write_bytes(_to_pem(theirs))
    from poisonwatch.attestation.keys import read_public_key

    key = read_public_key(tmp_path / "theirs.pub")
    assert find_signers(json.dumps(envelope.to_dict()), PAYLOAD, {key.id: key}) == {key.id}


def _to_pem(theirs: CryptoSigner) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(theirs.public_key.keyval["public"]))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
