"""Fetch a piece by its name: which service has it, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast

from crds.errors import InvalidInput
from keymgmt.attestation.collateral.amd_kds import KDS_URL, AmdKds
from keymgmt.attestation.collateral.intel_pcs import CERTIFICATES_URL, PCS_URL, IntelPcs
from keymgmt.attestation.collateral.names import kind_of
from keymgmt.attestation.collateral.pieces import Piece
from keymgmt.attestation.collateral.vendor_client import VendorClient
from keymgmt.attestation.intel.pck import Ca
from keymgmt.attestation.intel.quote import Tee
from keymgmt.attestation.report import Product, Tcb

DEFAULT_SERVICES: Final[Mapping[str, str]] = {
    "amd-kds": KDS_URL,
    "intel-pcs": PCS_URL,
    "intel-certificates": CERTIFICATES_URL,
}


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Asks the vendors' services, or caches of them: `services` maps their names to base URLs."""

    services: Mapping[str, str] = field(default_factory=lambda: DEFAULT_SERVICES)
    timeout: float = 20.0
    attempts: int = 3

    def fetch(self, name: str, now: datetime) -> Piece:
        """The piece of that name. Raises InvalidInput and CollateralUnavailable."""
        kind_of(name)
        vendor, *parts = name.split("/")
        if vendor == "intel":
            with self._client("intel-pcs") as pcs, self._client("intel-certificates") as certificates:
                tee, fmspc, ca = cast(Tee, parts[0]), parts[1], cast(Ca, parts[2])
                return IntelPcs(pcs, certificates).collateral(tee, fmspc, ca, now)
        if vendor == "amd":
            with self._client("amd-kds") as client:
                return _from_kds(AmdKds(client), parts, now)
        raise InvalidInput(f"no fetcher for {vendor}", where="name", fix="import a bundle that holds it")

    def _client(self, service: str) -> VendorClient:
        url = self.services.get(service, DEFAULT_SERVICES[service])
        return VendorClient(url, timeout=self.timeout, attempts=self.attempts)


def _from_kds(kds: AmdKds, parts: list[str], now: datetime) -> Piece:
    product = cast(Product, parts[1])
    if parts[0] == "crl":
        return kds.crl(product, now)
    if parts[0] == "vcek":
        return kds.vcek(product, bytes.fromhex(parts[2]), Tcb.decode(bytes.fromhex(parts[3]), product), now)
    return kds.chain(product, now, vlek=parts[0] == "vlek-chain")
