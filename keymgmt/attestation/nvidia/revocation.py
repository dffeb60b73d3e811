"""Whether an issuer revoked a device's certificates, or put them on hold: OCSP responses.

Source: RFC 6960. Responses are collateral: fetched elsewhere, handed in as DER. A response
counts when its issuer signed it, or a responder that the issuer delegated, or one that is
pinned by configuration (RFC 6960, 4.2.2.2). The device's own chip issues the signing
certificate, so that nobody can revoke that one; the root is trusted by its pin.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from keymgmt.attestation.nvidia.certificates import Certificate, DeviceChain
from keymgmt.attestation.refusal import refuse

MAX_RESPONSES: Final = 64
MAX_RESPONSE_BYTES: Final = 16 * 1024
MAX_SINGLE_RESPONSES: Final = 32
LIFETIME: Final = timedelta(hours=24)  # of a response that names no next update
_HASHES = {"sha1", "sha256", "sha384"}


@functools.lru_cache(maxsize=256)
def read_response(der: bytes) -> ocsp.OCSPResponse:
    """Parse a successful OCSP response. Raises RevocationUnknown."""
    if len(der) > MAX_RESPONSE_BYTES:
        raise refuse("RevocationUnknown", f"an OCSP response of {len(der)} bytes is too large", where="ocsp")
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
            # The parser is lazy: touch what is used later, so that nothing raises there.
            _ = (response.tbs_response_bytes, response.signature, response.signature_hash_algorithm)
            _ = (response.responder_key_hash, response.responder_name, [*response.certificates])
            singles = [*response.responses][: MAX_SINGLE_RESPONSES + 1]
            for one in singles:
                _ = (one.serial_number, one.issuer_key_hash, one.issuer_name_hash, one.hash_algorithm)
                _ = (one.certificate_status, one.revocation_reason, one.this_update_utc, one.next_update_utc)
            if len(singles) <= MAX_SINGLE_RESPONSES:
                return response
    except Exception:  # many kinds; each means the same here
        raise refuse("RevocationUnknown", "not an OCSP response", where="ocsp") from None
    raise refuse("RevocationUnknown", "the OCSP responder gave no answer of use", where="ocsp")


def check_revocation(
    chain: DeviceChain,
    responses: Sequence[bytes],
    responders: Collection[str],
    now: datetime,
    required: bool,
) -> None:
    """Look for device, provisioner and family certificates in the responses.

    `responders`: SHA-256 (hex) of pinned responder keys (SubjectPublicKeyInfo). A response
    that nobody entitled signed is no response. One that has run out still revokes, and is
    otherwise refused, since who supplied it wants it heeded, unless there is a later one. With
    `required`, each of the certificates needs a current good answer.
    Raises CertificateRevoked, CertificateOnHold, RevocationUnknown.
    """
    if not responses and not required:
        return
    if len(responses) > MAX_RESPONSES:
        raise refuse("RevocationUnknown", f"more than {MAX_RESPONSES} OCSP responses", where="ocsp")
    parsed = [read_response(der) for der in responses]
    for child, parent in zip(chain.certificates[1:-1], chain.certificates[2:], strict=True):
        answers = [
            single
            for response in parsed
            for single in response.responses
            if _concerns(single, child, parent) and _entitled(response, parent, responders, now)
        ]
        _judge(answers, child, now, required)


def _judge(answers: list[ocsp.OCSPSingleResponse], child: Certificate, now: datetime, required: bool) -> None:
    """A revocation counts for good; a hold, as all else, until a later answer says otherwise."""
    for one in answers:
        held = one.revocation_reason is x509.ReasonFlags.certificate_hold
        if one.certificate_status is ocsp.OCSPCertStatus.REVOKED and not held:
            raise refuse("CertificateRevoked", where=child.common_name)
    if not answers:
        if required:
            raise refuse("RevocationUnknown", where=child.common_name, fix="supply a current OCSP response")
        return
    latest = max(answers, key=lambda one: one.this_update_utc)
    if latest.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        raise refuse("CertificateOnHold", where=child.common_name, fix="ask the vendor why")
    until = latest.next_update_utc or latest.this_update_utc + LIFETIME
    if latest.certificate_status is not ocsp.OCSPCertStatus.GOOD or not latest.this_update_utc <= now <= until:
        raise refuse("RevocationUnknown", "the answer is not good and current", where=child.common_name)


def _concerns(single: ocsp.OCSPSingleResponse, child: Certificate, parent: Certificate) -> bool:
    if single.serial_number != child.x509.serial_number or single.hash_algorithm.name not in _HASHES:
        return False
    point = parent.key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name = parent.subject.public_bytes()
    return (
        hashlib.new(single.hash_algorithm.name, point, usedforsecurity=False).digest() == single.issuer_key_hash
        and hashlib.new(single.hash_algorithm.name, name, usedforsecurity=False).digest() == single.issuer_name_hash
    )


def _entitled(response: ocsp.OCSPResponse, parent: Certificate, responders: Collection[str], now: datetime) -> bool:
    """Whether the issuer, its delegate or a pinned responder signed the response."""
    if _signed(response, parent.x509):
        return True
    for one in response.certificates:
        try:
            spki = one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            pinned = hashlib.sha256(spki).hexdigest() in responders
            if (pinned or _delegated(one, parent, now)) and _signed(response, one):
                return True
        except Exception:  # noqa: S112 - a certificate that does not parse entitles nobody
            continue
    return False


def _delegated(one: x509.Certificate, parent: Certificate, now: datetime) -> bool:
    usage = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usage or one.issuer != parent.subject:
        return False
    if not one.not_valid_before_utc <= now <= one.not_valid_after_utc or one.signature_hash_algorithm is None:
        return False
    parent.key.verify(one.signature, one.tbs_certificate_bytes, ec.ECDSA(one.signature_hash_algorithm))
    return True


@functools.lru_cache(maxsize=1024)
def _signed(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    """Whether the certificate's key signed the response; remembered, for answers outlive many verifications."""
    key, algorithm = signer.public_key(), response.signature_hash_algorithm
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    if not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        return False
    try:
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True
