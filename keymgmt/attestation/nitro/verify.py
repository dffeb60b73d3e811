"""The Nitro verifier: a document, trusted roots, a policy and a time in; claims or a refusal out."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from crds.errors import InvalidInput
from keymgmt.attestation import ear
from keymgmt.attestation.nitro.chain import BUILTIN_ANCHORS, NitroAnchors, verify_chain
from keymgmt.attestation.nitro.document import PCR_BYTES, NitroDocument, parse_document
from keymgmt.attestation.refusal import refuse

POLICY_ID: Final = "urn:kekkai:appraisal:aws-nitro:v1"


@dataclass(frozen=True, slots=True)
class NitroPolicy:
    """Appraisal policy for enclaves; the defaults are those of production.

    A document states when it was made: it is accepted for `max_age` after that, and up to
    `clock_skew` before it, for clocks that differ. Debug enclaves are refused whatever the
    policy. `pcrs` are 48 raw bytes by index; a missing index is not looked at here.
    """

    max_age: timedelta = timedelta(minutes=5)
    clock_skew: timedelta = timedelta(minutes=1)
    pcrs: Mapping[int, frozenset[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NitroClaims:
    """What an accepted document proves. `as_dict` gives the claim form."""

    document: NitroDocument
    root: str  # "aws" or "local:<name>"
    measurement_known: bool  # the policy listed PCR0 values and this is one of them

    def as_dict(self) -> dict[str, Any]:
        """Claims as CEL rules and tokens see them (`claims.nitro`); bytes in lower-case hex.

        PCR0 the image, PCR1 kernel and boot, PCR2 the application, PCR3 the instance's IAM
        role, PCR4 the instance, PCR8 the image's signing certificate.
        """
        document = self.document
        return {
            "module_id": document.module_id,
            "timestamp": document.time.isoformat(),
            **{f"pcr{index}": value.hex() for index, value in document.pcrs.items()},
            "debug": document.debug,
            "public_key": (document.public_key or b"").hex(),
            "user_data": (document.user_data or b"").hex(),
            "nonce": (document.nonce or b"").hex(),
            "report_data": (document.nonce or b"").hex(),
            "root": self.root,
        }

    def as_ear_submod(self) -> dict[str, Any]:
        """The EAR submod (`cpu0`): status, trustworthiness vector, policy id, and `nitro`, `root` claims."""
        vector = ear.tee_vector(measurement_known=self.measurement_known)
        return {
            "ear.status": ear.status(vector),
            "ear.trustworthiness-vector": vector,
            "ear.appraisal-policy-id": POLICY_ID,
            "nitro": self.as_dict(),
            "root": self.root,
        }


def verify_nitro(
    document: bytes,
    policy: NitroPolicy,
    now: datetime,
    *,
    expected_nonce: bytes | None,
    expected_public_key: bytes | None = None,
    expected_user_data: bytes | None = None,
    anchors: NitroAnchors = BUILTIN_ANCHORS,
) -> NitroClaims:
    """Verify an attestation document and appraise it.

    `now` must be aware of its zone. Each expected value is compared when given. Raises
    AttestationRefused; see refusal.REASONS. No claim leaves unless all checks passed.
    """
    if now.tzinfo is None:
        raise InvalidInput("the time of verification has no zone", where="now")
    parsed = parse_document(document)
    chain = verify_chain(parsed.certificate, parsed.bundle)
    root = anchors.get(chain.root_sha256)
    if root is None:
        raise refuse("RootUntrusted", f"root with SHA-256 {chain.root_sha256} is not pinned", where="cabundle.0")
    chain.check_validity(now)
    _verify_signature(parsed, chain.key)
    _check_time(parsed.time, now, policy)
    _check_bound(parsed.nonce, expected_nonce, "NonceMismatch", "nonce")
    _check_bound(parsed.public_key, expected_public_key, "PublicKeyMismatch", "public_key")
    _check_bound(parsed.user_data, expected_user_data, "UserDataMismatch", "user_data")
    if parsed.debug:
        raise refuse("DebugAllowed", where="pcrs.0", fix="start the enclave without --debug-mode")
    for index in sorted(policy.pcrs):
        if parsed.pcrs.get(index, bytes(PCR_BYTES)) not in policy.pcrs[index]:
            raise refuse("PcrNotAllowed", f"PCR{index} is not one of those accepted", where=f"pcrs.{index}")
    return NitroClaims(parsed, root, 0 in policy.pcrs)


def _verify_signature(document: NitroDocument, key: ec.EllipticCurvePublicKey) -> None:
    half = len(document.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (document.signature[:half], document.signature[half:]))
    try:
        key.verify(encode_dss_signature(r, s), document.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise refuse("SignatureInvalid", "the signature over the document does not verify") from None


def _check_time(made: datetime, now: datetime, policy: NitroPolicy) -> None:
    if made - now > policy.clock_skew:
        raise refuse("DocumentFromFuture", f"made {made.isoformat()}", where="timestamp", fix="compare the clocks")
    if now - made > policy.max_age:
        raise refuse("DocumentTooOld", f"made {made.isoformat()}", where="timestamp", fix="ask the NSM for a new one")


def _check_bound(stated: bytes | None, expected: bytes | None, reason: str, where: str) -> None:
    if expected is not None and not (stated is not None and hmac.compare_digest(stated, expected)):
        raise refuse(reason, "not what this session expects" if where == "nonce" else "", where=where)
