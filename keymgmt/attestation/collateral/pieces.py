"""A piece of collateral: its bytes, what they are for, and what they say of their own validity.

What a piece states is read from its bytes, never from who hands it over; signatures are
checked before a piece is kept, so that no unsigned one can raise the floor against rollback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from keymgmt.attestation.certificates import (
    Authority,
    SigningCertificate,
    read_certificate,
    split_certificates,
    vouched_for,
)
from keymgmt.attestation.collateral.freshness import Validity
from keymgmt.attestation.collateral.names import kind_of
from keymgmt.attestation.intel.endorsements import BUILTIN_ANCHORS, IntelAnchors, IntelCollateral
from keymgmt.attestation.refusal import AttestationRefused, refuse
from keymgmt.attestation.roots import AMD_ROOTS

MAX_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Collateral as fetched. `fetched` is when it came from the vendor, aware of its zone."""

    name: str
    body: bytes
    fetched: datetime

    @property
    def sha256(self) -> str:
        """Digest of the body, hex."""
        return hashlib.sha256(self.body).hexdigest()


# Gives the body of another piece that is at hand, None if there is none.
Lookup = Callable[[str], bytes | None]


def validity_of(piece: Piece, other: Lookup, intel_anchors: IntelAnchors = BUILTIN_ANCHORS) -> Validity:
    """Authenticate the piece by its kind and give what it says of itself.

    AMD's revocation list is checked by the chain of its product, which `other` must give; a
    VCEK is checked by its verifier, against the report that it signed. Raises InvalidInput for
    an unknown name and AttestationRefused for bytes that are not what the name says.
    """
    kind_of(piece.name)
    if not 0 < len(piece.body) <= MAX_PIECE_BYTES:
        raise refuse("CollateralMalformed", f"a piece has 1 to {MAX_PIECE_BYTES} bytes", where=piece.name)
    parts = piece.name.split("/")
    if parts[0] == "intel":
        return _intel(piece, intel_anchors)
    if parts[0] == "nvidia":
        return Validity(piece.fetched, None)  # RIMs and OCSP responses are judged where they are used
    if parts[1] == "crl":
        return _amd_crl(piece, other(f"amd/vcek-chain/{parts[2]}"))
    if parts[1] == "vcek":
        return _vcek(piece, parts[2], parts[3])
    return _dates([one.certificate for one in _amd_chain(piece.body, piece.name)])


def _intel(piece: Piece, anchors: IntelAnchors) -> Validity:
    found = IntelCollateral.parse(piece.body)
    if found.name != piece.name:
        raise refuse("CollateralMismatch", f"the piece is for {found.name}", where=piece.name)
    return found.authenticate(anchors).validity


def _amd_chain(body: bytes, name: str) -> tuple[Authority, Authority]:
    """ASK (or ASVK) and ARK, the latter pinned. They must be of the product that the name states."""
    product = name.rpartition("/")[2]
    found = _read(body, name)
    issuers = [one for one in found if isinstance(one, Authority) and not one.self_issued]
    roots = [one for one in found if isinstance(one, Authority) and one.self_issued]
    if len(found) != 2 or len(issuers) != 1 or len(roots) != 1:
        raise refuse("CollateralMalformed", "a chain is an intermediate and its root", where=name)
    if AMD_ROOTS.get(roots[0].spki_sha256) != product:
        raise refuse("RootUntrusted", f"the root is not AMD's for {product}", where=name)
    if not vouched_for(issuers[0], roots[0]) or not vouched_for(roots[0], roots[0]):
        raise refuse("CollateralInvalid", "the intermediate is not issued by the root", where=name)
    return issuers[0], roots[0]


def _amd_crl(piece: Piece, chain: bytes | None) -> Validity:
    load = x509.load_pem_x509_crl if piece.body.startswith(b"-----BEGIN") else x509.load_der_x509_crl
    try:
        crl = load(piece.body)
        numbers = [one.value.crl_number for one in crl.extensions if isinstance(one.value, x509.CRLNumber)]
        dates = (crl.last_update_utc, crl.next_update_utc)
    except Exception:  # the parser raises what it likes on foreign bytes
        raise refuse("CollateralMalformed", "not a revocation list", where=piece.name) from None
    product = piece.name.rpartition("/")[2]
    if chain is None:
        raise refuse(
            "CollateralMissing",
            "the list's issuer is not at hand",
            where=piece.name,
            fix=f"add amd/vcek-chain/{product}",
        )
    _, root = _amd_chain(chain, f"amd/vcek-chain/{product}")
    if crl.issuer != root.certificate.subject or not crl.is_signature_valid(root.key):
        raise refuse("CollateralInvalid", "the revocation list is not signed by AMD's root", where=piece.name)
    return Validity(dates[0], dates[1], numbers[0] if numbers else 0)


def _vcek(piece: Piece, product: str, chip: str) -> Validity:
    found = _read(piece.body, piece.name)
    leaf = found[0] if len(found) == 1 else None
    if not isinstance(leaf, SigningCertificate) or leaf.hardware_id is None:
        raise refuse("CollateralMalformed", "not one VCEK", where=piece.name)
    if leaf.product != product or not leaf.hardware_id.hex().startswith(chip):
        raise refuse("CollateralMismatch", "the VCEK is another chip's", where=piece.name)
    return _dates([leaf.certificate])


def _read(body: bytes, name: str) -> list[Authority | SigningCertificate]:
    try:
        return [read_certificate(der) for der in split_certificates((body,))]
    except AttestationRefused as error:
        raise refuse("CollateralMalformed", error.problem.what, where=name) from None


def _dates(certificates: Sequence[x509.Certificate]) -> Validity:
    return Validity(
        max(one.not_valid_before_utc for one in certificates), min(one.not_valid_after_utc for one in certificates)
    )
