"""Probing a token's mechanisms and choosing among them; each choice that is second best is stated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pkcs11 import MGF, Mechanism

from keymgmt.hsm.protocol import HsmCapabilities, HsmError
from keymgmt.sealing.format import DataKeyAlgorithm


@dataclass(frozen=True, slots=True)
class Choices:
    """What will be used."""

    data_key: DataKeyAlgorithm
    kwp: Mechanism | None
    ecdsa: bool
    eddsa: bool
    oaep: tuple[Mechanism, MGF, None]
    fallbacks: tuple[str, ...]

    def capabilities(self, module: str, token: str) -> HsmCapabilities:
        """The report of these choices."""
        return HsmCapabilities(
            module=module,
            token=token,
            data_key="AES-GCM" if self.data_key is DataKeyAlgorithm.AES_GCM else "AES-KWP",
            ecdsa_p256="hsm" if self.ecdsa else "software",
            ed25519="hsm" if self.eddsa else "software",
            import_wrapping="RSA-OAEP-SHA1" if self.oaep[0] == Mechanism.SHA_1 else "RSA-OAEP-SHA256",
            fallbacks=self.fallbacks,
        )


def probe(slot: Any, avoid: Iterable[str] = ()) -> Choices:
    """Choose by what the slot lists, without those named in `avoid`. Raises HsmError if nothing will do."""
    avoided = set(avoid)
    present = {m for m in slot.get_mechanisms() if getattr(m, "name", "") not in avoided}
    fallbacks = []
    # SoftHSM lists RFC 5649 as CKM_AES_KEY_WRAP_PAD; PKCS#11 3.0 calls it CKM_AES_KEY_WRAP_KWP.
    kwp = next((m for m in (Mechanism.AES_KEY_WRAP_KWP, Mechanism.AES_KEY_WRAP_PAD) if m in present), None)
    if Mechanism.AES_GCM in present:
        data_key = DataKeyAlgorithm.AES_GCM
    elif kwp is not None:
        data_key = DataKeyAlgorithm.AES_KWP
        fallbacks.append("data keys: AES-KWP over key and context digest, because the token has no AES-GCM")
    else:
        raise HsmError("the token has neither AES-GCM nor AES-KWP", where="hsm", fix="use a token that has one of them")
    ecdsa = {Mechanism.ECDSA, Mechanism.EC_KEY_PAIR_GEN} <= present
    if not ecdsa:
        fallbacks.append("attestation tokens: ECDSA in software, key sealed by the token")
    eddsa = {Mechanism.EDDSA, Mechanism.EC_EDWARDS_KEY_PAIR_GEN} <= present
    if not eddsa:
        fallbacks.append("log checkpoints: Ed25519 in software, key sealed by the token")
    oaep = (Mechanism.SHA256, MGF.SHA256, None)
    if "SoftHSM" in str(getattr(slot, "manufacturer_id", "")) or "SoftHSM" in str(
        getattr(slot, "slot_description", "")
    ):
        oaep = (Mechanism.SHA_1, MGF.SHA1, None)
        fallbacks.append("key import: RSA-OAEP with SHA-1, the only hash that SoftHSM 2.6 knows for OAEP")
    fallbacks.append("re-wrapping to the guest's key: in the worker process, because the token has no HPKE or JWE")
    return Choices(data_key, kwp, ecdsa, eddsa, oaep, tuple(fallbacks))
