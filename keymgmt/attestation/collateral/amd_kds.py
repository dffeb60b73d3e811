"""AMD's Key Distribution Service: chains, revocation lists and VCEKs.

Source: AMD 57230 "VCEK Certificate and KDS Interface Specification". The service limits how
often it may be asked; keep what it gives.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from keymgmt.attestation.collateral.pieces import Piece
from keymgmt.attestation.collateral.vendor_client import VendorClient
from keymgmt.attestation.report import Product, Tcb

KDS_URL: Final = "https://kdsintf.amd.com"


class AmdKds:
    """Fetches by what a piece is for. Every method raises CollateralUnavailable."""

    def __init__(self, client: VendorClient) -> None:
        self._client = client

    def chain(self, product: Product, now: datetime, *, vlek: bool = False) -> Piece:
        """ASK (`vlek`: ASVK) and ARK of a product, PEM."""
        kind = "vlek" if vlek else "vcek"
        body = self._client.get(f"/{kind}/v1/{product}/cert_chain", limit=64 * 1024).body
        return Piece(f"amd/{kind}-chain/{product}", body, now)

    def crl(self, product: Product, now: datetime) -> Piece:
        """The ARK's revocation list, DER."""
        return Piece(f"amd/crl/{product}", self._client.get(f"/vcek/v1/{product}/crl").body, now)

    def vcek(self, product: Product, chip_id: bytes, tcb: Tcb, now: datetime) -> Piece:
        """The VCEK of one chip (CHIP_ID as in the report, 64 bytes) at one TCB, DER."""
        identity = chip_id[:8] if product == "Turin" else chip_id
        levels = {"blSPL": tcb.bootloader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
        if tcb.fmc is not None:
            levels["fmcSPL"] = tcb.fmc
        query = {name: f"{level:02d}" for name, level in levels.items()}
        reply = self._client.get(f"/vcek/v1/{product}/{identity.hex()}", query, limit=16 * 1024)
        return Piece(f"amd/vcek/{product}/{identity.hex()}/{tcb.encode(product).hex()}", reply.body, now)
