"""An emulated processor: its identity, and the endorsement key of its present TCB.

As on real silicon the VCEK is derived from a secret of the chip and the TCB, so that it need
not be stored and another TCB has another key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding

from keymgmt.attestation.report import Tcb
from local.hardware.snp.authority import Authority

# Order of NIST P-384; a derived scalar must lie in [1, n-1].
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
DEFAULT_TCB = Tcb(bootloader=10, tee=0, snp=23, microcode=84)


@dataclass(frozen=True, slots=True)
class Chip:
    """One socket. `vcek` is the DER certificate of `key`."""

    chip_id: bytes
    tcb: Tcb
    key: ec.EllipticCurvePrivateKey
    vcek: bytes

    @classmethod
    def manufacture(cls, seed: bytes, name: str, authority: Authority, tcb: Tcb = DEFAULT_TCB) -> Chip:
        """The chip that `seed` and `name` stand for: always the same identity and key."""
        chip_id = hashlib.sha512(b"chip id\0" + seed + name.encode()).digest()
        if authority.product == "Turin":
            chip_id = chip_id[:8].ljust(64, b"\0")
        info = b"vcek\0" + chip_id + tcb.encode(authority.product)
        wide = HKDF(hashes.SHA384(), 72, None, info).derive(seed)
        key = ec.derive_private_key(int.from_bytes(wide, "big") % (_ORDER - 1) + 1, ec.SECP384R1())
        hardware_id = chip_id[:8] if authority.product == "Turin" else chip_id
        certificate = authority.issue_vcek(key.public_key(), tcb, hardware_id)
        return cls(chip_id, tcb, key, certificate.public_bytes(Encoding.DER))
