"""EAR, the form of attestation results: trustworthiness vector, tiers, status.

Source: draft-ietf-rats-ar4si (trustworthiness claims) and draft-fv-rats-ear. Values: -1 to 1
no claim; 2 to 31 affirming; 32 to 95 warning; 96 to 127 contraindicated; negative ones are
the verifier's own, in tiers that mirror these. `ear_claims` reads results of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PROFILE: Final = "tag:github.com,2023:veraison/ear"
SNP_POLICY_ID: Final = "urn:kekkai:appraisal:sev-snp:v1"
AZURE_CVM_POLICY_ID: Final = "urn:kekkai:appraisal:az-snp-vtpm:v1"
NVIDIA_POLICY_ID: Final = "urn:kekkai:appraisal:nvidia:v1"


CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)


def tier_of(value: int) -> str:
    """The tier of a trustworthiness claim's value, -128 to 127."""
    if -1 <= value <= 1:
        return "none"
    if -32 <= value <= 31:
        return "affirming"
    return "warning" if -96 <= value <= 95 else "contraindicated"


def status(vector: Mapping[str, int]) -> str:
    """The worst tier that the vector names: none, affirming, warning or contraindicated."""
    tiers = {tier_of(value) for value in vector.values()}
    return next((tier for tier in ("contraindicated", "warning", "affirming") if tier in tiers), "none")


def snp_vector(*, debug: bool, measurement_known: bool) -> dict[str, int]:
    """The vector of a guest whose report was verified and appraised.

    A guest that its host may debug keeps nothing from it: its memory is visible
    (runtime-opaque 96) and its configuration unsafe (32). Executables are affirmed only
    against reference values; without them no claim is made, and the release policy decides.
    """
    return {
        "instance-identity": 2,
        "configuration": 32 if debug else 2,
        "executables": 2 if measurement_known else 0,
        "file-system": 0,
        "hardware": 2,
        "runtime-opaque": 96 if debug else 2,
        "storage-opaque": 0,
        "sourced-data": 0,
    }


def device_vector(*, measurements_known: bool) -> dict[str, int]:
    """The vector of a GPU or switch whose report was verified and appraised.

    Without golden measurements nothing is said of its firmware, nor whether it can be debugged.
    """
    said = 2 if measurements_known else 0
    return {
        "instance-identity": 2,
        "configuration": said,
        "executables": said,
        "file-system": 0,
        "hardware": 2,
        "runtime-opaque": said,
        "storage-opaque": 0,
        "sourced-data": 0,
    }


def tee_vector(*, measurement_known: bool, up_to_date: bool = True, configured: bool = True) -> dict[str, int]:
    """The vector of a guest that was verified, appraised and shut to its host's debugger.

    `up_to_date`: no known vulnerability of the platform is open (else hardware 32, unsafe);
    `configured`: the platform is set up as its vendor advises (else configuration 32).
    """
    return {
        "instance-identity": 2,
        "configuration": 2 if configured else 32,
        "executables": 2 if measurement_known else 0,
        "file-system": 0,
        "hardware": 2 if up_to_date else 32,
        "runtime-opaque": 2,
        "storage-opaque": 0,
        "sourced-data": 0,
    }
