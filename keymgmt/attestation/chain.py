"""From a report-signing certificate up to a pinned root, and whether anything was revoked.

VCEK is issued by the ASK, VLEK by the ASVK, both by the ARK. RFC 5280 path validation of
general libraries refuses AMD's RSA-PSS chains; the path here has exactly three certificates
with fixed roles, so each step is checked outright.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from keymgmt.attestation.certificates import Authority, SigningCertificate, signed_by, vouched_for
from keymgmt.attestation.refusal import refuse


@dataclass(frozen=True, slots=True)
class Chain:
    """Three certificates whose signatures were verified, and the label of the trusted root."""

    leaf: SigningCertificate
    issuer: Authority
    root: Authority
    root_label: str  # "amd" or "local:<name>"
    valid_from: datetime
    valid_until: datetime

    def certificates(self) -> tuple[tuple[x509.Certificate, Authority], ...]:
        """Each certificate with its issuer, leaf first."""
        return (
            (self.leaf.certificate, self.issuer),
            (self.issuer.certificate, self.root),
            (self.root.certificate, self.root),
        )


def build_chain(
    leaf: SigningCertificate,
    supplied: Sequence[Authority],
    stored: Sequence[Authority],
    anchors: Mapping[str, str],
) -> Chain:
    """Verify signatures from `leaf` to an anchor.

    `supplied` authorities came with the evidence, `stored` ones from collateral; an
    intermediate that was supplied must be the right one and is not silently replaced.
    `anchors` maps SHA-256 of a root's SPKI (hex) to its label. Time plays no part here.
    Raises CertificateChainInvalid or RootUntrusted.
    """
    prefix = "SEV-VLEK-" if leaf.signer == "vlek" else "SEV-"
    offered = [one for one in supplied if not one.self_issued]
    candidates = offered or [one for one in stored if not one.self_issued]
    issuer = next((one for one in candidates if _issued(leaf.certificate, one)), None)
    if issuer is None or issuer.name != f"{prefix}{leaf.product}":
        raise refuse(
            "CertificateChainInvalid",
            f"no certificate {prefix}{leaf.product} at hand issued this {leaf.signer.upper()}",
            fix="supply the ASK or ASVK with the evidence or as collateral",
        )
    roots = [one for one in (*supplied, *stored) if one.self_issued]
    named = (one for one in roots if one.certificate.subject == issuer.certificate.issuer)
    root = next((one for one in named if vouched_for(issuer, one) and vouched_for(one, one)), None)
    if root is None:
        raise refuse(
            "CertificateChainInvalid",
            f"no root certificate at hand issued {issuer.name}",
            fix="supply the ARK with the evidence or as collateral",
        )
    label = anchors.get(root.spki_sha256)
    if label is None:
        raise refuse("RootUntrusted", f"{root.name} with SPKI SHA-256 {root.spki_sha256} is not pinned")
    members = (leaf.certificate, issuer.certificate, root.certificate)
    return Chain(
        leaf,
        issuer,
        root,
        label,
        max(one.not_valid_before_utc for one in members),
        min(one.not_valid_after_utc for one in members),
    )


def check_validity(chain: Chain, now: datetime) -> None:
    """Raise CertificateNotYetValid or CertificateExpired unless all of the chain holds at `now`."""
    place = chain.leaf.signer.upper()
    if now < chain.valid_from:
        raise refuse("CertificateNotYetValid", f"the chain is valid from {chain.valid_from} on", where=place)
    if now > chain.valid_until:
        raise refuse("CertificateExpired", f"the chain was valid until {chain.valid_until}", where=place)


def check_revocation(
    chain: Chain, lists: Sequence[x509.CertificateRevocationList], now: datetime, required: bool
) -> None:
    """Look for each certificate in its issuer's revocation list.

    AMD publishes one list per product, signed by the ARK. A list that does not verify is no
    list. A list that has run out still revokes, and is otherwise refused (RevocationUnknown),
    since who supplied it wants it heeded. With `required`, a missing list of the ARK is
    refused too. Raises CertificateRevoked or RevocationUnknown.
    """
    if not lists and not required:
        return
    covered = False
    for certificate, issuer in chain.certificates():
        for one in lists:
            if one.issuer != issuer.certificate.subject or not one.is_signature_valid(issuer.key):
                continue
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None and entry.revocation_date_utc <= now:
                raise refuse("CertificateRevoked", where=certificate.subject.rfc4514_string())
            if one.next_update_utc is None or not one.last_update_utc <= now <= one.next_update_utc:
                raise refuse("RevocationUnknown", "the revocation list is not current", where=issuer.name)
            covered = covered or issuer is chain.root
    if required and not covered:
        raise refuse("RevocationUnknown", where=chain.root.name, fix="add the ARK's current CRL as collateral")


def _issued(certificate: x509.Certificate, issuer: Authority) -> bool:
    return issuer.certificate.subject == certificate.issuer and signed_by(certificate, issuer.key)
