"""Names of collateral: what a piece is for, which is also its place in the cache and in a bundle.

| name | piece |
|---|---|
| `amd/{vcek,vlek}-chain/<product>` | ASK or ASVK with ARK, PEM |
| `amd/crl/<product>` | the ARK's revocation list, DER |
| `amd/vcek/<product>/<chip id>/<tcb>` | one chip's VCEK at one TCB, DER; both in lower-case hex |
| `intel/{tdx,sgx}/<FMSPC>/{platform,processor}` | QuoteCollateralV3, JSON |
| `nvidia/rim/<id>`, `nvidia/ocsp/<serial>` | reference values and revocation, as fetched |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from crds.errors import InvalidInput

MAX_NAME: Final = 320
_SEGMENT: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,159}"
_NAME: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{1,7}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of names: pattern of the whole name, and what its pieces are as files."""

    pattern: re.Pattern[str]
    suffix: str
    media_type: str


_KINDS: Final = (
    Kind(re.compile(r"amd/v[cl]ek-chain/(Milan|Genoa|Turin)"), ".pem", "application/pem-certificate-chain"),
    Kind(re.compile(r"amd/crl/(Milan|Genoa|Turin)"), ".crl", "application/pkix-crl"),
    Kind(
        re.compile(r"amd/vcek/(Milan|Genoa|Turin)/([0-9a-f]{16}|[0-9a-f]{128})/[0-9a-f]{16}"),
        ".der",
        "application/pkix-cert",
    ),
    Kind(re.compile(r"intel/(tdx|sgx)/[0-9A-F]{12}/(platform|processor)"), ".json", "application/json"),
    Kind(re.compile(r"nvidia/rim/[^/]+"), ".xml", "application/xml"),
    Kind(re.compile(r"nvidia/ocsp/[0-9a-f]{1,64}"), ".ocsp", "application/ocsp-response"),
)


def kind_of(name: str) -> Kind:
    """The family that `name` belongs to. Raises InvalidInput for what is not a name of collateral."""
    if len(name) <= MAX_NAME and _NAME.fullmatch(name):
        for kind in _KINDS:
            if kind.pattern.fullmatch(name):
                return kind
    raise InvalidInput(
        f"{name[:80]!r} names no collateral that is known here",
        where="name",
        fix="such as intel/tdx/B0C06F000000/platform or amd/crl/Milan",
    )
