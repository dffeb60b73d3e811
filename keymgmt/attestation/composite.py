"""Further devices of one guest: GPUs and switches beside the CPU, all bound to one nonce.

In the KBS protocol a guest's `additional_evidence` is a JSON string, a map from kind of
device to its evidence. The CPU's report covers that string; each device's report covers
SHA-384 of the canonical JSON `{"nonce", "tee-pubkey"}`, so that both answer one challenge
and one key. What no device can say of itself is judged here: that no device was presented
twice, and that switches and GPUs name each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation.nvidia import (
    DeviceEvidence,
    NvidiaClaims,
    NvidiaEndorsements,
    NvidiaPolicy,
    parse_evidence,
    verify_device,
)
from keymgmt.attestation.refusal import refuse

MAX_EVIDENCE_BYTES: Final = 1 << 20
NVIDIA: Final = "nvidia"
_NOTHING: Final = ("", "{}")


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """What is demanded of the devices together. How many GPUs a workload needs is its release rule's."""

    nvidia: NvidiaPolicy = field(default_factory=NvidiaPolicy)
    # Devices that protect their links must all be presented, and name each other.
    require_topology: bool = True


@dataclass(frozen=True, slots=True)
class DeviceSet:
    """Devices that convinced, each a different one, in the order of the evidence."""

    devices: tuple[NvidiaClaims, ...] = ()
    protected_links: bool = False  # GPUs and switches are one whole, their links protected

    def _of(self, kind: str) -> list[NvidiaClaims]:
        return [one for one in self.devices if one.device_class == kind]

    @property
    def gpus(self) -> list[NvidiaClaims]:
        return self._of("gpu")

    @property
    def switches(self) -> list[NvidiaClaims]:
        return self._of("switch")

    def as_submods(self) -> dict[str, dict[str, Any]]:
        """EAR submods `gpu0`, `gpu1`, …, `switch0`, …"""
        named = {f"gpu{number}": one for number, one in enumerate(self.gpus)}
        named |= {f"switch{number}": one for number, one in enumerate(self.switches)}
        return {name: {**one.as_ear_submod(), "protected_links": self.protected_links} for name, one in named.items()}


def device_nonce(nonce: str, tee_key: Mapping[str, Any]) -> bytes:
    """What a device must answer: 48 bytes, of which SPDM's nonce takes the first 32."""
    return hashlib.sha384(strict_json.canonical({"nonce": nonce, "tee-pubkey": dict(tee_key)})).digest()


def parse_additional_evidence(text: str) -> tuple[DeviceEvidence, ...]:
    """Read `additional_evidence`; empty for "" and "{}". Raises EvidenceMalformed, TeeUnsupported."""
    if text in _NOTHING:
        return ()
    try:
        evidence = strict_json.parse_object(text.encode(), limit=MAX_EVIDENCE_BYTES)
    except (InvalidInput, UnicodeEncodeError):
        raise refuse("EvidenceMalformed", "not a JSON object", where="additional_evidence") from None
    unknown = sorted(evidence.keys() - {NVIDIA})
    if unknown:
        raise refuse("TeeUnsupported", f"no verifier for devices {unknown[0][:32]!r}", where="additional_evidence")
    return parse_evidence(evidence[NVIDIA]) if evidence else ()


def verify_devices(
    evidence: Sequence[DeviceEvidence],
    endorsements: NvidiaEndorsements,
    policy: DevicePolicy,
    now: datetime,
    nonce: bytes | None,
) -> DeviceSet:
    """Verify each device, then all together. Raises AttestationRefused, naming the device in `where`."""
    devices = tuple(
        verify_device(one.report, one.certificates, one.architecture, endorsements, policy.nvidia, now, nonce)
        for one in evidence
    )
    _check_distinct(devices)
    return DeviceSet(devices, _check_topology(devices, policy))


def rule_claims(submods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a release rule sees of the devices: `claims.gpus`, `claims.switches`, `claims.protected_links`."""

    def of(kind: str) -> list[Any]:
        return [one["nvidia"] for name, one in submods.items() if name.startswith(kind) and "nvidia" in one]

    gpus = of("gpu")
    linked = bool(gpus) and all(
        one.get("protected_links") is True for name, one in submods.items() if name.startswith("gpu")
    )
    return {"gpus": gpus, "switches": of("switch"), "protected_links": linked}


def _check_distinct(devices: Sequence[NvidiaClaims]) -> None:
    """One chip counts once: by its own key, whatever firmware certified the signing key."""
    seen: set[str] = set()
    for number, one in enumerate(devices):
        identities = {f"key {one.device_key}", f"serial {one.chain.ueid}", f"PDI {one.pdi}"}
        if seen & identities:
            raise refuse(
                "DeviceDuplicated",
                f"{one.device_class} {one.chain.ueid} was presented twice",
                where=f"nvidia[{number}]",
                fix="send each device once",
            )
        seen |= identities


def _check_topology(devices: Sequence[NvidiaClaims], policy: DevicePolicy) -> bool:
    """Whether links are protected: each such GPU names exactly the switches presented, and they the count of GPUs.

    Devices of which none protects its links are independent of each other: False. A switch
    names GPUs by identities that their own evidence does not state, so that only how many
    there are can be compared.
    """
    switches = [one for one in devices if one.device_class == "switch"]
    gpus = [one for one in devices if one.device_class == "gpu"]
    linked = [one for one in gpus if one.opaque.protected_pcie or one.opaque.mode == "PPCIE"]
    if not linked and not switches:
        return False
    presented = {one.pdi for one in switches}
    fault = ""
    if not switches or len(linked) != len(gpus):
        fault = f"{len(linked)} of {len(gpus)} GPUs protect their links, over {len(switches)} switches"
    elif any(set(one.opaque.pdis) != presented for one in gpus):
        fault = "a GPU is linked to other switches than those presented"
    elif any(set(one.opaque.gpu_pdis) != set(switches[0].opaque.gpu_pdis) for one in switches):
        fault = "the switches are linked to different GPUs"
    elif len(switches[0].opaque.gpu_pdis) != len(gpus):
        fault = f"the switches are linked to {len(switches[0].opaque.gpu_pdis)} GPUs, {len(gpus)} are presented"
    if fault and policy.require_topology:
        raise refuse("TopologyMismatch", fault, where="nvidia", fix="send evidence of all GPUs and switches")
    return not fault
