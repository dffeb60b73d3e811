"""EAR, the form of attestation results: trustworthiness vector, tiers, status.

Source: draft-ietf-rats-ar4si (trustworthiness claims) and draft-fv-rats-ear. Values: 0 no
claim; 2 to 31 affirming; 32 to 95 warning; 96 to 127 contraindicated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PROFILE: Final = "tag:github.com,2023:veraison/ear"
SNP_POLICY_ID: Final = "urn:kekkai:appraisal:sev-snp:v1"
AZURE_CVM_POLICY_ID: Final = "urn:kekkai:appraisal:az-snp-vtpm:v1"
NVIDIA_POLICY_ID: Final = "urn:kekkai:appraisal:nvidia:v1"


def status(vector: Mapping[str, int]) -> str:
    """The worst tier that the vector names: none, affirming, warning or contraindicated."""
    worst = max(vector.values(), default=0)
    if worst >= 96:
        return "contraindicated"
    if worst >= 32:
        return "warning"
    return "affirming" if worst >= 2 else "none"


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
