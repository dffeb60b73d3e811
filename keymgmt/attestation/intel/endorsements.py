"""Intel's collateral for one platform family: TCB info, QE identity and revocation lists, authenticated.

Form: the JSON object of dcap-qvl's QuoteCollateralV3 (texts as Intel signed them, lists and
signatures in hex), which is also what a cache entry and a bundle hold. Source of the inner
documents: Intel PCS API version 4 (TCB Info V3, Enclave Identity V2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol

import dcap_qvl
from cryptography import x509

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation.collateral.freshness import FreshnessPolicy, Validity, check_freshness
from keymgmt.attestation.intel import signatures
from keymgmt.attestation.intel.dcap import guarded
from keymgmt.attestation.intel.pck import INTEL_ROOT, Ca
from keymgmt.attestation.intel.quote import Tee
from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_COLLATERAL_BYTES: Final = 1 << 20
_TEXTS: Final = ("tcb_info", "qe_identity", "tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain")
_HEX: Final = ("tcb_info_signature", "qe_identity_signature", "root_ca_crl", "pck_crl")
_IDS: Final[dict[str, Tee]] = {"TDX": "tdx", "SGX": "sgx"}
_QE_IDS: Final[dict[str, Tee]] = {"TD_QE": "tdx", "QE": "sgx"}

# Trusted Intel roots: SHA-256 of the DER, hex → label.
IntelAnchors = Mapping[str, str]
BUILTIN_ANCHORS: Final[IntelAnchors] = {INTEL_ROOT: "intel"}


class CollateralSource(Protocol):
    """Where a verifier asks for the collateral of a platform."""

    def for_platform(self, tee: Tee, fmspc: str, ca: Ca) -> IntelCollateral:
        """Collateral for a TEE, FMSPC (12 upper-case hex digits) and PCK CA. Raises AttestationRefused."""
        ...


@dataclass(frozen=True, slots=True)
class IntelCollateral:
    """Parsed collateral. Verifiers take only what `authenticate` gave: `root` is the label of its root.

    dcap-qvl tolerates a missing list of the root's, so nothing of this is left to it alone.
    """

    tee: Tee
    fmspc: str
    pce_id: str
    ca: Ca
    tcb_info: Validity
    qe_identity: Validity
    root_crl: Validity
    pck_crl: Validity
    native: dcap_qvl.QuoteCollateralV3 = field(repr=False, compare=False)
    _texts: Mapping[str, str] = field(repr=False)
    root: str | None = None

    @classmethod
    def parse(cls, body: bytes) -> IntelCollateral:
        """Read the JSON form, at most 1 MiB. Raises CollateralMalformed and CollateralMismatch."""
        texts = _members(body)
        tcb, qe = _document(texts["tcb_info"], "tcb_info"), _document(texts["qe_identity"], "qe_identity")
        tee = _IDS.get(str(tcb.get("id")))
        if tee is None or tcb.get("version") != 3:
            raise _malformed("neither TDX nor SGX TCB info of version 3", "tcb_info")
        if _QE_IDS.get(str(qe.get("id"))) != tee or qe.get("version") != 2:
            raise refuse("CollateralMismatch", f"not the quoting enclave identity of {tee}", where="qe_identity")
        try:
            root_crl = x509.load_der_x509_crl(bytes.fromhex(texts["root_ca_crl"]))
            pck_crl = x509.load_der_x509_crl(bytes.fromhex(texts["pck_crl"]))
            ca = signatures.pck_ca_of(pck_crl)
            native = guarded(
                lambda: dcap_qvl.QuoteCollateralV3.from_json(json.dumps(texts)),
                lambda _: _malformed("not of dcap-qvl's form", "collateral"),
            )
        except AttestationRefused:
            raise
        except Exception:  # the parsers raise what they like on foreign bytes
            raise _malformed("a revocation list or signature does not parse", "collateral") from None
        return cls(
            tee=tee,
            fmspc=_hex(tcb, "fmspc", 12),
            pce_id=_hex(tcb, "pceId", 4),
            ca=ca,
            tcb_info=_validity(tcb, "tcb_info"),
            qe_identity=_validity(qe, "qe_identity"),
            root_crl=signatures.crl_validity(root_crl, "root_ca_crl"),
            pck_crl=signatures.crl_validity(pck_crl, "pck_crl"),
            native=native,
            _texts=texts,
        )

    @property
    def name(self) -> str:
        """What the piece is for, as the collateral cache names it."""
        return f"intel/{self.tee}/{self.fmspc}/{self.ca}"

    @property
    def validity(self) -> Validity:
        """Of the whole: last issue, earliest end, TCB evaluation number."""
        parts = (self.tcb_info, self.qe_identity, self.root_crl, self.pck_crl)
        return Validity(
            issued=max(part.issued for part in parts),
            expires=min(part.expires for part in parts if part.expires is not None),
            sequence=self.tcb_info.sequence,
        )

    def authenticate(self, anchors: IntelAnchors = BUILTIN_ANCHORS) -> IntelCollateral:
        """Check all signatures up to a root in `anchors`; itself with `root` set.

        Time plays no part here. Raises CollateralInvalid, RootUntrusted, CollateralMalformed.
        """
        texts = self._texts
        labels = {
            signatures.check_document(
                texts[part], texts[f"{part}_signature"], texts[f"{part}_issuer_chain"], anchors, part
            )
            for part in ("tcb_info", "qe_identity")
        }
        lists = (bytes.fromhex(texts["root_ca_crl"]), bytes.fromhex(texts["pck_crl"]))
        labels.add(signatures.check_lists(*lists, texts["pck_crl_issuer_chain"], anchors))
        if len(labels) != 1:
            raise refuse("CollateralInvalid", "parts of the collateral stand on different roots", where=self.name)
        return replace(self, root=labels.pop())

    def check_freshness(self, now: datetime, policy: FreshnessPolicy) -> None:
        """Raise unless every part may be relied upon at `now`; see collateral.freshness.

        The evaluation number's floor holds for TCB info and QE identity; lists have dates only.
        """
        dates_only = FreshnessPolicy()
        check_freshness(self.root_crl, now, dates_only, where="root_ca_crl", revocation=True)
        check_freshness(self.pck_crl, now, dates_only, where="pck_crl", revocation=True)
        check_freshness(self.tcb_info, now, policy, where="tcb_info")
        check_freshness(self.qe_identity, now, policy, where="qe_identity")

    def for_platform(self, tee: Tee, fmspc: str, ca: Ca) -> IntelCollateral:
        """Itself, if it is for that platform. Raises CollateralMismatch."""
        if (self.tee, self.fmspc, self.ca) != (tee, fmspc, ca):
            raise refuse(
                "CollateralMismatch",
                f"collateral is for {self.name}, the quote of intel/{tee}/{fmspc}/{ca}",
                where="collateral",
            )
        return self


class IntelEndorsements:
    """All authenticated collateral at hand, by platform. Immutable; share it freely."""

    def __init__(self, pieces: Iterable[IntelCollateral] = ()) -> None:
        self._by_platform = {(one.tee, one.fmspc, one.ca): one for one in pieces}

    def __len__(self) -> int:
        return len(self._by_platform)

    def for_platform(self, tee: Tee, fmspc: str, ca: Ca) -> IntelCollateral:
        """The platform's collateral. Raises CollateralMissing."""
        found = self._by_platform.get((tee, fmspc, ca))
        if found is None:
            raise refuse(
                "CollateralMissing",
                f"none for intel/{tee}/{fmspc}/{ca}",
                where="collateral",
                fix=f"kekkai keys collateral fetch intel/{tee}/{fmspc}/{ca}",
            )
        return found


def _members(body: bytes) -> dict[str, str]:
    try:
        document = strict_json.parse_object(body, limit=MAX_COLLATERAL_BYTES, where="collateral")
    except InvalidInput as error:
        raise _malformed(error.problem.what, "collateral") from None
    texts = {}
    for name in (*_TEXTS, *_HEX):
        value = document.get(name)
        if not isinstance(value, str):
            raise _malformed("a text is expected", name)
        texts[name] = value
    extra = sorted(set(document) - set(texts) - {"pck_certificate_chain"})
    if extra:
        raise _malformed(f"unknown member {extra[0][:40]!r}", "collateral")
    for name in _HEX:
        try:
            bytes.fromhex(texts[name])
        except ValueError:
            raise _malformed("not hex digits", name) from None
    return texts


def _document(text: str, where: str) -> dict[str, Any]:
    try:
        return strict_json.parse_object(text.encode(), limit=MAX_COLLATERAL_BYTES, where=where)
    except (InvalidInput, UnicodeEncodeError):
        raise _malformed("not a JSON object", where) from None


def _validity(document: Mapping[str, Any], where: str) -> Validity:
    number = document.get("tcbEvaluationDataNumber")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise _malformed("tcbEvaluationDataNumber is not a number", where)
    return Validity(_time(document, "issueDate", where), _time(document, "nextUpdate", where), number)


def _time(document: Mapping[str, Any], name: str, where: str) -> datetime:
    value = document.get(name)
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _malformed(f"{name} is not a time in UTC", where)
    return time


def _hex(document: Mapping[str, Any], name: str, digits: int) -> str:
    value = document.get(name)
    if not isinstance(value, str) or len(value) != digits or not all(c in "0123456789abcdefABCDEF" for c in value):
        raise _malformed(f"{name} is not {digits} hex digits", "tcb_info")
    return value.upper()


def _malformed(what: str, where: str) -> AttestationRefused:
    return refuse("CollateralMalformed", what, where=where)
