"""Golden measurements of drivers and firmware, and their comparison with a device's.

NVIDIA publishes reference integrity manifests (RIM): one for a driver version, one for a
firmware version, each with its own measurement indices and, per index, alternatives. Here
they come as JSON, made from RIMs whose XML signature was checked when they were fetched:

    {"kind": "driver" | "vbios", "arch": "HOPPER", "version": "550.90.07",
     "measurements": {"8": ["<hex>", …], …}}

Indices are those of SPDM, from 1; a RIM counts from 0, so that its index 7 is 8 here. Only
active measurements belong in the map.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from crds.errors import InvalidInput, KekkaiError
from keymgmt import strict_json
from keymgmt.attestation.nvidia.certificates import SWITCHES, Architecture
from keymgmt.attestation.nvidia.opaque import OpaqueData
from keymgmt.attestation.refusal import refuse

MAX_FILES: Final = 4096
MAX_FILE_BYTES: Final = 1 << 20
NVDEC0_INDEX: Final = 36
KINDS: Final = ("driver", "vbios")
_MEMBERS: Final = {"kind", "arch", "version", "measurements"}
_ARCHITECTURES: Final[dict[str, Architecture]] = {"HOPPER": "HOPPER", "BLACKWELL": "BLACKWELL", "LS10": "LS10"}


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """Golden measurements by (architecture, kind, version): SPDM index → acceptable values."""

    manifests: Mapping[tuple[Architecture, str, str], Mapping[int, frozenset[bytes]]]

    @classmethod
    def parse(cls, documents: Iterable[bytes]) -> ReferenceValues:
        """Read JSON documents; two for the same version are refused. Raises InvalidInput."""
        found: dict[tuple[Architecture, str, str], Mapping[int, frozenset[bytes]]] = {}
        for document in documents:
            key, values = _manifest(strict_json.parse_object(document, limit=MAX_FILE_BYTES, where="reference values"))
            if key in found:
                raise InvalidInput(f"reference values of {key[1]} {key[2]} are given twice", where="version")
            found[key] = values
        return cls(found)

    @classmethod
    def from_directory(cls, folder: Path) -> ReferenceValues:
        """Read every .json file under `folder`. Raises InvalidInput naming the file."""
        if not folder.is_dir():
            raise InvalidInput("the folder does not exist", where=str(folder))
        paths = sorted(path for path in folder.rglob("*.json") if path.is_file())
        if len(paths) > MAX_FILES:
            raise InvalidInput(f"more than {MAX_FILES} files", where=str(folder))
        documents = []
        for path in paths:
            data = path.read_bytes()
            try:
                _manifest(strict_json.parse_object(data, limit=MAX_FILE_BYTES))
            except KekkaiError as error:
                raise InvalidInput(error.problem.what, where=f"{path}: {error.problem.where}") from None
            documents.append(data)
        return cls.parse(documents)


def compare(
    measurements: Mapping[int, bytes],
    architecture: Architecture,
    opaque: OpaqueData,
    reference: ReferenceValues,
    required: bool,
) -> bool:
    """Whether the device's measurements were found to be the golden ones of its driver and firmware.

    False when there are no reference values for these versions and none are `required`.
    A GPU needs both manifests, a switch only its firmware's. Raises MeasurementMismatch,
    ReferenceValueMissing.
    """
    versions = {"driver": opaque.driver_version, "vbios": opaque.vbios_version}
    needed = ("vbios",) if architecture in SWITCHES else KINDS
    manifests = {kind: reference.manifests.get((architecture, kind, versions[kind])) for kind in needed}
    seen: set[int] = set()
    for kind, golden in manifests.items():
        if golden is None:
            continue
        if seen & golden.keys():
            raise refuse("MeasurementMismatch", "driver and firmware manifests state the same index", where=kind)
        seen |= golden.keys()
        for index, accepted in golden.items():
            if index == NVDEC0_INDEX and opaque.nvdec0_disabled:
                continue
            value = measurements.get(index, b"")
            if not any(hmac.compare_digest(value, one) for one in accepted):
                raise refuse(
                    "MeasurementMismatch",
                    f"measurement {index} is not as the {kind} manifest of {versions[kind]} states",
                    where=f"measurements.{index}",
                )
    missing = [f"{kind} {versions[kind]}" for kind, golden in manifests.items() if golden is None]
    if missing and required:
        raise refuse(
            "ReferenceValueMissing",
            f"no reference values for {' and '.join(missing)} of {architecture}",
            where="driver_version",
            fix="add the manifests to attestation.nvidia.referenceValueDirs",
        )
    return not missing


def _manifest(document: dict[str, Any]) -> tuple[tuple[Architecture, str, str], Mapping[int, frozenset[bytes]]]:
    kind, version, measurements = document.get("kind"), document.get("version"), document.get("measurements")
    architecture = _ARCHITECTURES.get(str(document.get("arch")))
    if kind not in KINDS:
        raise InvalidInput("kind is driver or vbios", where="kind")
    if architecture is None:
        raise InvalidInput(f"arch is one of {', '.join(_ARCHITECTURES)}", where="arch")
    if not isinstance(version, str) or not 1 <= len(version) <= 64:
        raise InvalidInput("a version is expected", where="version")
    if (
        not isinstance(measurements, dict)
        or not measurements
        or set(document) - {"kind", "arch", "version", "measurements"}
    ):
        raise InvalidInput("only kind, arch, version and a map of measurements are expected", where="measurements")
    return (architecture, str(kind), version.lower()), {
        _index(index): _values(values, f"measurements.{index}") for index, values in measurements.items()
    }


def _index(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 3 else 0
    if not 1 <= number <= 254 or text != str(number):
        raise InvalidInput("an index is a number from 1 to 254", where=f"measurements.{text[:8]}")
    return number


def _values(stated: object, where: str) -> frozenset[bytes]:
    if not isinstance(stated, list) or not 1 <= len(stated) <= 64:
        raise InvalidInput("a list of 1 to 64 values in hex is expected", where=where)
    try:
        values = frozenset(bytes.fromhex(one) for one in stated if isinstance(one, str))
    except ValueError:
        raise InvalidInput("a value is not hexadecimal", where=where) from None
    if len(values) != len(stated) or any(not 20 <= len(one) <= 64 for one in values):
        raise InvalidInput("values are distinct and 20 to 64 bytes long", where=where)
    return values
