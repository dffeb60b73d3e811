"""From a KBS attest request to verified claims: the seam to the verifiers.

REPORT_DATA must be SHA-384 of the canonical JSON `{"additional-evidence", "nonce",
"tee-pubkey"}`; the field that binds init data at launch must be its digest if any was sent.
Devices in the additional evidence answer SHA-384 of `{"nonce", "tee-pubkey"}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation import AttestationRefused, composite
from keymgmt.attestation.refusal import refuse
from keymgmt.broker.device_verifier import DeviceVerifier
from keymgmt.broker.submods import init_data_of, tee_of
from keymgmt.broker.tee_verifiers import Presented, tee_verifiers
from keymgmt.config import Attestation


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

    def device_nonce(self) -> bytes:
        """What GPUs and switches must have signed: 48 bytes, cut to what their protocol has room for."""
        return composite.device_nonce(self.nonce, self.tee_key)


@dataclass(frozen=True, slots=True)
class Appraised:
    """Evidence that convinced."""

    submod: dict[str, Any]  # EAR submod `cpu0`
    evidence: str  # SHA-256 of the CPU's raw evidence, hex; that covers the devices' evidence
    devices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # EAR submods `gpu0`, `switch0`, …


class Appraiser:
    """Holds the verifiers with their trust roots and appraisal policies; they are fixed at start."""

    def __init__(self, config: Attestation) -> None:
        self._verifiers = tee_verifiers(config)
        self._devices = DeviceVerifier(config.nvidia)

    @property
    def anchors(self) -> list[str]:
        """Labels of the trusted roots, for the status."""
        return sorted(self._devices.labels.union(*(one.labels for one in self._verifiers.values())))

    def appraise(self, tee: str, request: AttestRequest, now: datetime) -> Appraised:
        """Verify. Raises AttestationRefused with its reason."""
        verifier = self._verifiers.get(tee)
        if verifier is None:
            raise refuse("TeeUnsupported", f"tee {tee!r} is not supported", where="tee")
        presented = Presented(request.primary_evidence, request.report_data(), request.init_data, now)
        verified = verifier.verify(presented)
        devices = self._devices.verify(request.additional_evidence, request.device_nonce(), now)
        return Appraised(verified.submod, hashlib.sha256(verified.evidence).hexdigest(), devices.as_submods())


def rule_claims(submod: Mapping[str, Any]) -> dict[str, Any]:
    """What a release rule sees as `claims`, out of the `cpu0` submod of a token.

    `init_data` is the field that binds init data at launch, in hex (SNP: HOST_DATA, TDX:
    MRCONFIGID, SGX: CONFIGID; empty for Nitro, which has none): bytes that equal the digest of
    the init data, cut or padded. The guest's own copy was compared if sent.
    """
    tee = tee_of(submod)
    if not tee:
        return {}
    return {"tee": tee, tee: submod[tee], "init_data": init_data_of(submod), "root": submod.get("root", "")}


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
