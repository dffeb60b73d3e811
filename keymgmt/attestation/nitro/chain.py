"""From an enclave's certificate up to AWS's Nitro root, each step checked outright.

The chain is ECDSA P-384 throughout: root G1, region, zone, instance, enclave. The enclave's
certificate lives three hours. AWS publishes no revocation lists for enclaves.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from keymgmt.attestation.refusal import AttestationRefused, refuse

# SHA-256 of the root certificate (DER) AWS_NitroEnclaves_Root-G1, as AWS publishes it with
# https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip.
AWS_ROOT_G1: Final = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
CACHED_CHAINS: Final = 1024

# Trusted roots: SHA-256 of the DER, hex → label.
NitroAnchors = Mapping[str, str]
BUILTIN_ANCHORS: Final[NitroAnchors] = {AWS_ROOT_G1: "aws"}


@dataclass(frozen=True, slots=True)
class NitroChain:
    """Certificates whose signatures and constraints were verified up to `root_sha256` (of the DER, hex)."""

    key: ec.EllipticCurvePublicKey
    root_sha256: str
    valid_from: datetime
    valid_until: datetime

    def check_validity(self, now: datetime) -> None:
        """Raise CertificateNotYetValid or CertificateExpired unless the whole chain holds at `now`."""
        if now < self.valid_from:
            raise refuse("CertificateNotYetValid", f"valid from {self.valid_from} on", where="certificate")
        if now > self.valid_until:
            raise refuse("CertificateExpired", f"valid until {self.valid_until}", where="certificate")


@functools.lru_cache(maxsize=CACHED_CHAINS)
def verify_chain(certificate: bytes, bundle: tuple[bytes, ...]) -> NitroChain:
    """Verify signatures and constraints from the enclave's certificate to `bundle[0]`; time plays no part.

    Whether that root is trusted is for the caller to say. Raises CertificateMalformed and
    CertificateChainInvalid. Remembered by content: an enclave repeats its chain for hours.
    """
    path = [_load(der) for der in (*bundle, certificate)]
    leaf = path[-1]
    for depth, (issuer, subject) in enumerate(itertools.pairwise(path)):
        below = len(path) - 2 - depth  # intermediates between the issuer and the leaf
        if not _may_issue(issuer, below):
            raise refuse("CertificateChainInvalid", "a certificate of cabundle may not issue others", where="cabundle")
        try:
            subject.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            raise refuse(
                "CertificateChainInvalid",
                "a certificate is not issued by the one before it",
                where=f"cabundle.{depth}",
            ) from None
    key = _public_key(leaf)
    usage = _extension(leaf, x509.KeyUsage)
    constraints = _extension(leaf, x509.BasicConstraints)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature:
        raise refuse("CertificateChainInvalid", "the enclave's key is not for signatures", where="certificate")
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise refuse("CertificateChainInvalid", "the enclave's certificate is an authority's", where="certificate")
    return NitroChain(
        key=key,
        root_sha256=hashlib.sha256(bundle[0]).hexdigest(),
        valid_from=max(one.not_valid_before_utc for one in path),
        valid_until=min(one.not_valid_after_utc for one in path),
    )


def _load(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions
    except Exception:  # the parser raises what it likes on foreign bytes
        raise _malformed("a certificate does not parse") from None
    _public_key(certificate)
    return certificate


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except Exception:
        raise _malformed("a certificate's key does not parse") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _malformed("a certificate's key is not on P-384")
    return key


def _may_issue(certificate: x509.Certificate, below: int) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    return isinstance(usage, x509.KeyUsage) and usage.key_cert_sign


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _malformed(what: str) -> AttestationRefused:
    return refuse("CertificateMalformed", what, where="cabundle")
