"""Verification of a TPM 2.0 quote: attestation key, PCR values, nonce in; proven PCRs or a refusal out.

Who vouches for the attestation key is the caller's to know: for Azure's confidential VMs the
hardware report does (`azure_cvm`). The key must be a restricted one, which signs nothing but
what its TPM made.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keymgmt.attestation.refusal import refuse
from keymgmt.attestation.vtpm.attest import ALG_ECDSA, ALG_RSAPSS, ALG_RSASSA, Quote, Signature, parse_quote

MIN_RSA_BITS: Final = 2048
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
AttestationKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class PcrPolicy:
    """What the PCRs of the SHA-256 bank must be: index → acceptable values, 32 bytes each.

    `required` must be covered by the quote, whatever their values.
    """

    required: frozenset[int] = frozenset()
    accepted: Mapping[int, frozenset[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuotedPcrs:
    """A quote that verified and the PCR values that it vouches for (SHA-256 bank)."""

    quote: Quote
    pcrs: Mapping[int, bytes]


def verify_quote(
    message: bytes,
    signature: Signature,
    key: AttestationKey,
    pcrs: Mapping[int, bytes],
    expected_nonce: bytes | None,
    policy: PcrPolicy,
) -> QuotedPcrs:
    """Verify a quote over the SHA-256 bank.

    `message`: TPMS_ATTEST as signed; `pcrs`: the values that the client sent, of which those
    that the quote does not cover are dropped; `expected_nonce`: qualifying data, compared at
    full length when given. Raises QuoteMalformed, QuoteSignatureUnsupported,
    SignatureInvalid, NonceMismatch, PcrSelectionInvalid, PcrDigestMismatch, PcrNotAllowed.
    """
    quote = parse_quote(message)
    _verify_signature(message, signature, key)
    if expected_nonce is not None and not hmac.compare_digest(quote.extra_data, expected_nonce):
        raise refuse("NonceMismatch", "the quote answers another nonce", where="extraData", fix="answer this challenge")
    if len(quote.selections) != 1 or quote.selections[0].bank != "sha256":
        raise refuse("PcrSelectionInvalid", "the quote must cover the SHA-256 bank and no other", where="pcrSelect")
    selected = quote.selections[0].pcrs
    needed = policy.required | policy.accepted.keys()
    if missing := sorted(needed - set(selected)):
        raise refuse("PcrSelectionInvalid", f"PCR {', '.join(map(str, missing))} not quoted", where="pcrSelect")
    proven = {index: pcrs[index] for index in selected if index in pcrs}
    if len(proven) != len(selected) or any(len(value) != 32 for value in proven.values()):
        raise refuse("PcrDigestMismatch", "a quoted PCR's value is missing or not 32 bytes", where="pcrs")
    # The digest is by the signing scheme's algorithm over the values in ascending order.
    digest = hashlib.new(signature.hash, b"".join(proven[index] for index in selected)).digest()
    if not hmac.compare_digest(digest, quote.pcr_digest):
        raise refuse("PcrDigestMismatch", where="pcrs")
    for index, accepted in sorted(policy.accepted.items()):
        if proven[index] not in accepted:
            raise refuse("PcrNotAllowed", f"PCR {index} is not one of those accepted", where=f"pcrs[{index}]")
    return QuotedPcrs(quote, proven)


def _verify_signature(message: bytes, signature: Signature, key: AttestationKey) -> None:
    algorithm = _HASHES[signature.hash]
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if signature.algorithm != ALG_ECDSA:
                raise refuse("QuoteSignatureUnsupported", "an RSA signature for an EC key", where="signature")
            if not signature.r or not signature.s:
                raise refuse("SignatureInvalid", where="signature")
            key.verify(encode_dss_signature(signature.r, signature.s), message, ec.ECDSA(algorithm))
            return
        if signature.algorithm not in (ALG_RSASSA, ALG_RSAPSS) or key.key_size < MIN_RSA_BITS:
            raise refuse(
                "QuoteSignatureUnsupported", "an EC signature for an RSA key, or a short key", where="signature"
            )
        scheme: padding.AsymmetricPadding = padding.PKCS1v15()
        if signature.algorithm == ALG_RSAPSS:
            scheme = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
        key.verify(signature.raw, message, scheme, algorithm)
    except InvalidSignature:
        raise refuse("SignatureInvalid", "the quote's signature does not verify", where="signature") from None
