"""DSSE envelopes (github.com/secure-systems-lab/dsse): signatures over PAE(type, body).

Algorithms: Ed25519 (RFC 8032), ECDSA P-256 with SHA-256 (DER signatures), ML-DSA-65 (FIPS 204).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from crds.errors import InvalidInput
from keymgmt.policy.errors import EnvelopeInvalid

Algorithm = Literal["ed25519", "ecdsa-p256", "ml-dsa-65"]
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA65PublicKey
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey
MAX_PAYLOAD = 64 * 1024
MAX_SIGNATURES = 32
_MAX_SIGNATURE = 8 * 1024


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Nothing is verified yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]  # (keyid, signature)

    @classmethod
    def parse(cls, document: object, payload_type: str) -> Envelope:
        """Check the form. Raises EnvelopeInvalid."""
        if not isinstance(document, Mapping):
            raise EnvelopeInvalid("a DSSE envelope is expected", fix="sign it with `kekkai keys policy sign`")
        if document.get("payloadType") != payload_type:
            raise EnvelopeInvalid(
                f"the payload type is not {payload_type}", where="payloadType", fix="sign the right document"
            )
        payload = _decode(document.get("payload"), "payload", MAX_PAYLOAD)
        listed = document.get("signatures")
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_SIGNATURES:
            raise EnvelopeInvalid(f"1 to {MAX_SIGNATURES} signatures are expected", where="signatures")
        signatures = []
        for index, item in enumerate(listed):
            if not isinstance(item, Mapping) or not isinstance(item.get("keyid"), str):
                raise EnvelopeInvalid("each signature has keyid and sig", where=f"signatures[{index}]")
            where = f"signatures[{index}].sig"
            signatures.append((item["keyid"], _decode(item.get("sig"), where, _MAX_SIGNATURE)))
        return cls(payload_type, payload, tuple(signatures))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": keyid, "sig": base64.b64encode(signature).decode()} for keyid, signature in self.signatures
            ],
        }

    def with_signature(self, keyid: str, private: PrivateKey) -> Envelope:
        """A copy that also carries a signature by `private`; an earlier one by the same key is replaced."""
        kept = tuple(item for item in self.signatures if item[0] != keyid)
        signature = sign(private, pae(self.payload_type, self.payload))
        return Envelope(self.payload_type, self.payload, (*kept, (keyid, signature)))


def sign(private: PrivateKey, message: bytes) -> bytes:
    """Sign with a custodian's private key."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.sign(message, ec.ECDSA(hashes.SHA256()))
    return private.sign(message)


def verify(public: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the signature is good."""
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            public.verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def algorithm_of(key: object) -> Algorithm | None:
    """Our name of a key's algorithm; None if it is not one of the three."""
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, mldsa.MLDSA65PublicKey | mldsa.MLDSA65PrivateKey):
        return "ml-dsa-65"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return "ecdsa-p256" if isinstance(key.curve, ec.SECP256R1) else None
    return None


def load_public_key(der: bytes, algorithm: Algorithm, where: str) -> PublicKey:
    """A custodian's public key from SPKI DER in its one canonical form. Raises InvalidInput."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("not an SPKI DER public key", where=where) from None
    if algorithm_of(key) != algorithm:
        raise InvalidInput(f"the key is not of algorithm {algorithm}", where=where)
    assert isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA65PublicKey)
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != der:
        raise InvalidInput("the key's DER is not canonical", where=where, fix="use an uncompressed point")
    return key


def _decode(value: object, where: str, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * limit:
        raise EnvelopeInvalid("base64 text is expected", where=where)
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeInvalid("not standard base64", where=where) from None
    if not 0 < len(decoded) <= limit:
        raise EnvelopeInvalid(f"1 to {limit} bytes are expected", where=where)
    return decoded
