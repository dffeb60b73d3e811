"""Who signed Intel's collateral: TCB signing chain, PCK CA and root, each step checked outright."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keymgmt.attestation.collateral.freshness import Validity
from keymgmt.attestation.intel.pck import Ca
from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_CHAIN_CHARACTERS: Final = 64 * 1024
TCB_SIGNER: Final = "Intel SGX TCB Signing"
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_CAS: Final[dict[str, Ca]] = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}


def check_document(text: str, signature: str, chain: str, anchors: Mapping[str, str], where: str) -> str:
    """Check a TCB info or QE identity: `signature` is hex r ‖ s over the exact text, P-256 with SHA-256.

    Gives the root's label. Raises CollateralInvalid, RootUntrusted, CollateralMalformed.
    """
    signer, label = _issued_by_root(chain, anchors, where)
    if _common_name(signer.subject) != TCB_SIGNER:
        raise refuse("CollateralInvalid", "not signed by Intel's TCB signing key", where=where)
    raw = bytes.fromhex(signature)
    if len(raw) != 64:
        raise refuse("CollateralMalformed", "a signature has 64 bytes", where=where)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    try:
        _key(signer, where).verify(der, text.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise refuse("CollateralInvalid", where=where) from None
    return label


def check_lists(root_crl: bytes, pck_crl: bytes, chain: str, anchors: Mapping[str, str]) -> str:
    """Check both revocation lists: the root's by the root, the PCK list by the PCK CA in `chain`.

    Gives the root's label. Raises CollateralInvalid, RootUntrusted, CollateralMalformed.
    """
    issuer, label = _issued_by_root(chain, anchors, "pck_crl")
    root = _certificates(chain, "pck_crl")[1]
    for data, signer, where in ((pck_crl, issuer, "pck_crl"), (root_crl, root, "root_ca_crl")):
        crl = x509.load_der_x509_crl(data)
        if crl.issuer != signer.subject or not crl.is_signature_valid(_key(signer, where)):
            raise refuse("CollateralInvalid", "the revocation list is not signed by its issuer", where=where)
    return label


def pck_ca_of(crl: x509.CertificateRevocationList) -> Ca:
    """Which PCK CA issued a list. Raises CollateralMalformed."""
    ca = _CAS.get(_common_name(crl.issuer))
    if ca is None:
        raise refuse("CollateralMalformed", "not a list of an Intel SGX PCK CA", where="pck_crl")
    return ca


def crl_validity(crl: x509.CertificateRevocationList, where: str) -> Validity:
    """Dates and number of a list. Raises CollateralMalformed if it states no next update."""
    if crl.next_update_utc is None:
        raise refuse("CollateralMalformed", "the list states no next update", where=where)
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        number = 0
    return Validity(crl.last_update_utc, crl.next_update_utc, number)


def _issued_by_root(chain: str, anchors: Mapping[str, str], where: str) -> tuple[x509.Certificate, str]:
    """The signer (first of two certificates) and the label of the root that issued it."""
    signer, root = _certificates(chain, where)
    label = anchors.get(hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest())
    if label is None:
        raise refuse("RootUntrusted", "the collateral's root is not pinned", where=where)
    try:
        signer.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        raise refuse("CollateralInvalid", "the signer's certificate is not issued by the root", where=where) from None
    return signer, label


def _certificates(chain: str, where: str) -> tuple[x509.Certificate, x509.Certificate]:
    parts = _PEM.findall(chain) if len(chain) <= MAX_CHAIN_CHARACTERS else []
    if len(parts) != 2:
        raise refuse("CollateralMalformed", "an issuer chain is two certificates in PEM", where=where)
    try:
        signer, root = (x509.load_pem_x509_certificate(part.encode()) for part in parts)
    except Exception:  # the parser raises what it likes on foreign bytes
        raise refuse("CollateralMalformed", "a certificate does not parse", where=where) from None
    return signer, root


def _key(certificate: x509.Certificate, where: str) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except Exception:
        raise _no_key(where) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _no_key(where)
    return key


def _no_key(where: str) -> AttestationRefused:
    return refuse("CollateralMalformed", "a certificate's key is not on P-256", where=where)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
