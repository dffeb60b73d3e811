"""From a KBS attest request to verified claims: the seam to the verifiers.

REPORT_DATA must be SHA-384 of the canonical JSON `{"additional-evidence", "nonce",
"tee-pubkey"}`; HOST_DATA must be the digest of the init data if any was sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation import (
    AttestationRefused,
    SnpPolicy,
    Tcb,
    TrustRoots,
    host_data_of,
    init_data_digest,
    parse_kbs_evidence,
    verify_snp,
)
from keymgmt.config import Attestation

NO_ADDITIONAL_EVIDENCE = ("", "{}")


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """The parts of an attest body, their form checked."""

    nonce: str
    tee_key: dict[str, Any]
    primary_evidence: object
    additional_evidence: str
    init_data: str | None

    @classmethod
    def parse(cls, body: bytes, limit: int) -> AttestRequest:
        """Raises InvalidInput."""
        document = strict_json.parse_object(body, limit=limit)
        runtime = _object(document, "runtime-data")
        evidence = _object(document, "tee-evidence")
        additional = evidence.get("additional_evidence", "")
        if not isinstance(additional, str):
            raise InvalidInput("a JSON string is expected", where="tee-evidence.additional_evidence")
        if additional not in NO_ADDITIONAL_EVIDENCE:
            raise InvalidInput(
                "evidence of further devices is not verified by this service",
                where="tee-evidence.additional_evidence",
                fix='send "{}"',
            )
        nonce = runtime.get("nonce")
        if not isinstance(nonce, str):
            raise InvalidInput("a nonce is expected", where="runtime-data.nonce")
        return cls(
            nonce=nonce,
            tee_key=_object(runtime, "tee-pubkey"),
            primary_evidence=evidence.get("primary_evidence"),
            additional_evidence=additional,
            init_data=_init_data(document.get("init-data")),
        )

    def report_data(self) -> bytes:
        """What the hardware must have signed: 48 bytes."""
        bound = {
            "additional-evidence": self.additional_evidence,
            "nonce": self.nonce,
            "tee-pubkey": self.tee_key,
        }
        return hashlib.sha384(strict_json.canonical(bound)).digest()


@dataclass(frozen=True, slots=True)
class Appraised:
    """Evidence that convinced."""

    submod: dict[str, Any]  # EAR submod `cpu0`
    evidence: str  # SHA-256 of the raw evidence, hex


class Appraiser:
    """Holds trust roots and the appraisal policy; both are fixed at start."""

    def __init__(self, config: Attestation) -> None:
        roots = TrustRoots.builtin_amd() if config.trust_amd else TrustRoots()
        for folder in config.local_trust_roots:
            roots = roots | TrustRoots.from_directory(folder)
        for folder in config.collateral_dirs:
            roots = roots.with_collateral(folder)
        self._roots = roots
        tcb = config.snp.minimum_tcb
        self._policy = SnpPolicy(
            minimum_tcb=Tcb(tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode, tcb.fmc),
            products=frozenset(config.snp.products),
        )

    @property
    def anchors(self) -> list[str]:
        """Labels of the trusted roots, for the status."""
        return sorted(set(self._roots.anchors.values()))

    def appraise(self, tee: str, request: AttestRequest, now: datetime) -> Appraised:
        """Verify. Raises AttestationRefused with its reason."""
        evidence = parse_kbs_evidence(tee, request.primary_evidence)
        policy = self._policy
        if request.init_data is not None:
            policy = replace(policy, host_data=host_data_of(init_data_digest(request.init_data)))
        claims = verify_snp(evidence.report, evidence.certificates, self._roots, policy, now, request.report_data())
        digest = hashlib.sha256(evidence.report).hexdigest()
        return Appraised(claims.as_ear_submod(), digest)


def rule_claims(submod: Mapping[str, Any]) -> dict[str, Any]:
    """What a release rule sees as `claims`, out of the `cpu0` submod of a token.

    `init_data` is HOST_DATA in hex: 32 bytes that the host chose at launch and that equal
    the digest of the init data, cut or padded. The guest's own copy was compared if sent.
    """
    snp = submod.get("snp")
    if not isinstance(snp, Mapping):
        return {}
    return {"tee": "snp", "snp": snp, "init_data": snp.get("host_data", ""), "root": submod.get("root", "")}


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise InvalidInput("a JSON object is expected", where=name)
    return value


def _init_data(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("format") != "toml" or not isinstance(value.get("body"), str):
        raise InvalidInput("init data is {format: toml, body}", where="init-data")
    body = value["body"]
    assert isinstance(body, str)
    return body


__all__ = ["Appraised", "Appraiser", "AttestRequest", "AttestationRefused", "rule_claims"]
