"""What a verifier of devices trusts and what it has at hand: roots, golden measurements, OCSP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crds.errors import InvalidInput
from keymgmt.attestation.nvidia.certificates import read_certificate, split_chain
from keymgmt.attestation.nvidia.reference import ReferenceValues
from keymgmt.attestation.nvidia.revocation import MAX_RESPONSE_BYTES, MAX_RESPONSES, read_response
from keymgmt.attestation.refusal import AttestationRefused

# SHA-256 of the public key (SubjectPublicKeyInfo) of "NVIDIA Device Identity CA", as in
# NVIDIA's attestation SDK (`internal/certs.h`, DEVICE_ROOT_CERT) and nvtrust.
NVIDIA_DEVICE_ROOT: Final = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"


@dataclass(frozen=True, slots=True)
class NvidiaEndorsements:
    """Immutable; share it freely. `roots`: SHA-256 of a root's SPKI (hex) → label."""

    roots: Mapping[str, str] = field(default_factory=lambda: {NVIDIA_DEVICE_ROOT: "nvidia"})
    reference: ReferenceValues = field(default_factory=lambda: ReferenceValues({}))
    ocsp_responses: tuple[bytes, ...] = ()
    ocsp_responders: frozenset[str] = frozenset()  # SHA-256 of the SPKI of pinned responders, hex


def load_endorsements(
    *,
    trust_nvidia: bool = True,
    root_folders: Iterable[Path] = (),
    reference_folders: Iterable[Path] = (),
    ocsp_folders: Iterable[Path] = (),
    ocsp_responders: Iterable[str] = (),
) -> NvidiaEndorsements:
    """Read folders once. Raises InvalidInput naming the file at fault.

    Roots in `root_folders` (`.pem`) are labelled `local:<folder name>`. A folder without what
    it is named for is a mistake, for whoever names it counts on it.
    """
    roots = {NVIDIA_DEVICE_ROOT: "nvidia"} if trust_nvidia else {}
    for folder in root_folders:
        found = [root for path in _files(folder, {".pem"}) for root in _roots(path)]
        if not found:
            raise InvalidInput("no root certificate in the trust root folder", where=str(folder))
        roots |= dict.fromkeys(found, f"local:{folder.resolve().name}")
    manifests = [ReferenceValues.from_directory(folder).manifests for folder in reference_folders]
    merged = {key: values for one in manifests for key, values in one.items()}
    if len(merged) != sum(map(len, manifests)):
        raise InvalidInput("two folders hold reference values of one version", where="referenceValueDirs")
    responses = tuple(_response(path) for folder in ocsp_folders for path in _files(folder, {".ocsp", ".der"}))
    if len(responses) > MAX_RESPONSES:
        raise InvalidInput(f"more than {MAX_RESPONSES} OCSP responses", where="ocspDirs")
    return NvidiaEndorsements(roots, ReferenceValues(merged), responses, frozenset(ocsp_responders))


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput("the folder does not exist", where=str(folder))
    return sorted(path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file())


def _roots(path: Path) -> list[str]:
    try:
        certificates = [read_certificate(pem) for pem in split_chain(path.read_bytes())]
    except AttestationRefused as error:
        raise InvalidInput(error.problem.what, where=str(path)) from None
    return [one.spki_sha256 for one in certificates if one.authority and one.x509.issuer == one.x509.subject]


def _response(path: Path) -> bytes:
    data = path.read_bytes()[: MAX_RESPONSE_BYTES + 1]
    try:
        read_response(data)
    except AttestationRefused as error:
        raise InvalidInput(error.problem.what, where=str(path)) from None
    return data
