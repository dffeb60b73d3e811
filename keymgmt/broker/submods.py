"""What the `cpu0` submod of a token says, whatever the TEE: its kind, init data, report data.

Each verifier puts its claims under the TEE's name. The field that binds init data at launch,
and the one that answers the challenge, have another name in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class TeeFields:
    """Names of claims. `init_data` is None where nothing of the launch binds it."""

    init_data: str | None
    report_data: str = "report_data"


TEES: Final[Mapping[str, TeeFields]] = {
    "snp": TeeFields("host_data"),
    "tdx": TeeFields("mr_config_id"),
    "sgx": TeeFields("config_id"),
    "nitro": TeeFields(None, "nonce"),
    "vtpm": TeeFields("pcr8", "nonce"),  # SHA-256(32 zero bytes ‖ digest of the init data)
}


def tee_of(submod: Mapping[str, Any]) -> str:
    """The TEE whose claims the submod holds; empty if there is none that is known."""
    return next((tee for tee in TEES if isinstance(submod.get(tee), Mapping)), "")


def init_data_of(submod: Mapping[str, Any]) -> str:
    """The init-data field in hex: bytes fixed at launch; empty where the TEE has none."""
    tee = tee_of(submod)
    field = TEES[tee].init_data if tee else None
    return "" if field is None else str(submod[tee].get(field, ""))


def report_data_of(submod: Mapping[str, Any]) -> str:
    """What answered the challenge, in hex."""
    tee = tee_of(submod)
    return str(submod[tee].get(TEES[tee].report_data, "")) if tee else ""
