"""DSSE envelopes: a statement with the signatures of one or more keys.

    {"payload": base64, "payloadType": ..., "signatures": [{"keyid": ..., "sig": base64}, ...]}

What is signed is the payload with its type and both lengths before it (pre-authentication encoding,
https://github.com/secure-systems-lab/dsse), so that no signature can be taken for one on something
else. Who holds an envelope may be anybody: nothing in it counts before a trusted key says so.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.errors import InputError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
# More of them are somebody's joke: each costs a check with every key.
MAX_SIGNATURES = 64


def encode_for_signing(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bytes that a key signs."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def write_envelope(payload: bytes, key_id: str, signature: bytes) -> str:
    """An envelope with one signature, as JSON."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id, "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, separators=(",", ":"))


def find_signers(envelope: str, payload: bytes, keys: Mapping[str, PublicKey]) -> set[str]:
    """The ids of those keys that signed exactly this payload, by an envelope of it: none where it
    is no envelope, or one of something else.
    """
    try:
        found = _parse_envelope(envelope)
    except InputError:
        return set()
    if found["payload"] != payload:
        return set()
    message = encode_for_signing(payload)
    signers = set()
    for key_id, signature in found["signatures"]:
        # The id in an envelope is a hint, which anybody may write there, or leave out.
        candidates = [keys[key_id]] if key_id in keys else keys.values()
        signers |= {key.id for key in candidates if key.verifies(signature, message)}
    return signers


def read_payload(envelope: str) -> bytes:
    """What an envelope holds, whoever signed it. Raises InputError where it is none."""
    payload: bytes = _parse_envelope(envelope)["payload"]
    return payload


def _parse_envelope(text: str) -> dict[str, Any]:
    """The payload, and the signatures as pairs of a key's id and bytes. Raises InputError."""
    try:
        envelope = json.loads(text)
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError
        signatures = []
        for signature in envelope["signatures"][:MAX_SIGNATURES]:
            made = base64.b64decode(signature["sig"], validate=True)
            signatures.append((str(signature.get("keyid", "")), made))
        payload = base64.b64decode(envelope["payload"], validate=True)
    # RecursionError: lists in lists, as deep as somebody likes.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        raise InputError(
            "a signed statement is no DSSE envelope of an in-toto statement: restore the file that "
            "Poisonwatch wrote"
        ) from None
    return {"payload": payload, "signatures": signatures}
