"""Verifier of NVIDIA confidential computing: GPUs (Hopper, Blackwell) and NVSwitches (LS10).

`verify_device` checks one device's SPDM measurement report, its certificate chain up to the
pinned device identity root, revocation, firmware identity, nonce and golden measurements.
Pure functions: time, roots, reference values and revocation answers are arguments. It must
not know which CPU asks, what other devices are there (`keymgmt.attestation.composite` does),
keys, tenants, HTTP or the network.
"""

from keymgmt.attestation.nvidia.certificates import DeviceChain
from keymgmt.attestation.nvidia.endorsements import NVIDIA_DEVICE_ROOT, NvidiaEndorsements, load_endorsements
from keymgmt.attestation.nvidia.evidence import DeviceEvidence, parse_evidence
from keymgmt.attestation.nvidia.opaque import OpaqueData, parse_opaque
from keymgmt.attestation.nvidia.policy import NvidiaPolicy
from keymgmt.attestation.nvidia.reference import ReferenceValues
from keymgmt.attestation.nvidia.spdm import MeasurementReport, parse_report
from keymgmt.attestation.nvidia.verifier import NvidiaClaims, verify_device

__all__ = [
    "NVIDIA_DEVICE_ROOT",
    "DeviceChain",
    "DeviceEvidence",
    "MeasurementReport",
    "NvidiaClaims",
    "NvidiaEndorsements",
    "NvidiaPolicy",
    "OpaqueData",
    "ReferenceValues",
    "load_endorsements",
    "parse_evidence",
    "parse_opaque",
    "parse_report",
    "verify_device",
]
