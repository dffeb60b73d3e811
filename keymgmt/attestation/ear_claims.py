"""Reading attestation results of other verifiers: an EAR's claims, and the token around them.

Source: draft-fv-rats-ear and draft-ietf-rats-ar4si (tiers and their ranges), Veraison's and
Trustee's profiles. A result is only as good as the key that signed it: `open_ear` verifies
first; `parse_ear` is for claims that are known to be authentic.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import load_der_public_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation import ear
from keymgmt.attestation.refusal import AttestationRefused, refuse

PROFILES: Final = frozenset({ear.PROFILE, "tag:github.com,2024:confidential-containers/Trustee"})
MAX_TOKEN_BYTES: Final = 256 * 1024
MAX_SUBMODS: Final = 64
KEY_ATTESTATION: Final = "ear.veraison.key-attestation"
_STATUS: Final = "ear.status"
_VECTOR: Final = "ear.trustworthiness-vector"
_POLICY: Final = "ear.appraisal-policy-id"
_ORDER: Final = {tier: rank for rank, tier in enumerate(("none", "affirming", "warning", "contraindicated"))}


@dataclass(frozen=True, slots=True)
class EarSubmod:
    """One attester's appraisal. `vector` has all eight claims, 0 where the result has none."""

    status: str
    vector: Mapping[str, int]
    policy_id: str
    attested_key: bytes | None  # DER SubjectPublicKeyInfo, out of a key attestation
    extensions: Mapping[str, Any]  # members beyond the standard ones

    def tier(self, claim: str) -> str:
        """The tier of one claim of the vector, such as "hardware"."""
        return ear.tier_of(self.vector[claim])


@dataclass(frozen=True, slots=True)
class Ear:
    """An attestation result."""

    profile: str
    issued_at: datetime
    expires_at: datetime | None
    developer: str
    build: str
    submods: Mapping[str, EarSubmod]
    raw_evidence: bytes | None

    @property
    def status(self) -> str:
        """The worst status of all submods."""
        return max((one.status for one in self.submods.values()), key=_ORDER.__getitem__)


def parse_ear(claims: object) -> Ear:
    """Read an EAR's claims set. Raises EarMalformed naming the member.

    A status better than the vector's worst tier contradicts itself and is refused; a worse
    one is the verifier's right.
    """
    document = _object(claims, "ear")
    profile = document.get("eat_profile")
    if profile not in PROFILES:
        raise _malformed("not a known profile", "eat_profile")
    verifier = _object(document.get("ear.verifier-id"), "ear.verifier-id")
    submods = _object(document.get("submods"), "submods")
    if not 1 <= len(submods) <= MAX_SUBMODS:
        raise _malformed(f"1 to {MAX_SUBMODS} submods are expected", "submods")
    expires, raw = document.get("exp"), document.get("ear.raw-evidence")
    return Ear(
        str(profile),
        _time(document.get("iat"), "iat"),
        None if expires is None else _time(expires, "exp"),
        _text(verifier.get("developer"), "ear.verifier-id.developer"),
        _text(verifier.get("build"), "ear.verifier-id.build"),
        {name: _submod(_object(one, f"submods.{name}"), f"submods.{name}") for name, one in submods.items()},
        None if raw is None else _base64url(raw, "ear.raw-evidence"),
    )


def open_ear(token: str, key: Mapping[str, Any], now: datetime) -> Ear:
    """Verify an EAR token (JWT, ES256) with its verifier's public key (JWK) and read it.

    Raises EarMalformed, EarExpired, SignatureInvalid.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise _malformed(f"more than {MAX_TOKEN_BYTES} characters", "token")
    try:
        # The algorithm is ours to choose, never the token's.
        opened = jws.deserialize_compact(token.encode(), ECKey.import_key(dict(key)), algorithms=["ES256"])
        claims = strict_json.parse_object(opened.payload, limit=MAX_TOKEN_BYTES)
    except InvalidInput:
        raise _malformed("the payload is not a JSON object", "token") from None
    except (JoseError, ValueError):
        raise refuse("SignatureInvalid", "not a token of this verifier", where="token") from None
    found = parse_ear(claims)
    if found.issued_at > now or (found.expires_at is not None and now >= found.expires_at):
        raise refuse("EarExpired", where="exp")
    return found


def _submod(stated: Mapping[str, Any], where: str) -> EarSubmod:
    status = stated.get(_STATUS)
    if not isinstance(status, str) or status not in _ORDER:
        raise _malformed(f"one of {', '.join(_ORDER)} is expected", f"{where}.{_STATUS}")
    vector = _vector(stated.get(_VECTOR, {}), f"{where}.{_VECTOR}")
    worst = ear.status(vector)
    if _ORDER[status] < _ORDER[worst]:
        raise _malformed(f"{status} contradicts the vector, which is {worst}", f"{where}.{_STATUS}")
    policy, attested = stated.get(_POLICY, ""), stated.get(KEY_ATTESTATION)
    return EarSubmod(
        status,
        vector,
        _text(policy, f"{where}.{_POLICY}") if policy != "" else "",
        None if attested is None else _attested_key(attested, f"{where}.{KEY_ATTESTATION}"),
        {name: value for name, value in stated.items() if name not in (_STATUS, _VECTOR, _POLICY)},
    )


def _vector(stated: object, where: str) -> dict[str, int]:
    vector = dict.fromkeys(ear.CLAIMS, 0)
    for claim, value in _object(stated, where).items():
        if claim not in vector:
            raise _malformed("not a claim of a trustworthiness vector", f"{where}.{claim[:32]}")
        if not isinstance(value, int) or isinstance(value, bool) or not -128 <= value <= 127:
            raise _malformed("an integer from -128 to 127 is expected", f"{where}.{claim}")
        vector[claim] = value
    return vector


def _attested_key(stated: object, where: str) -> bytes:
    der = _base64url(_object(stated, where).get("akpub"), f"{where}.akpub")
    try:
        load_der_public_key(der)
    except Exception:  # many kinds; each means the same here
        raise _malformed("not a public key", f"{where}.akpub") from None
    return der


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("a JSON object is expected", where)
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 1024:
        raise _malformed("a string is expected", where)
    return value


def _time(value: object, where: str) -> datetime:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise _malformed("seconds since 1970 are expected", where)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise _malformed("out of range", where) from None


def _base64url(value: object, where: str) -> bytes:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TOKEN_BYTES:
        raise _malformed("base64url is expected", where)
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("not valid base64url", where) from None


def _malformed(what: str, where: str) -> AttestationRefused:
    return refuse("EarMalformed", what, where=where)
