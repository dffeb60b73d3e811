"""What the key service needs of an HSM, and what it reports of the one it has."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from crds.errors import KekkaiError
from keymgmt.sealing.format import DataKeyAlgorithm, EncryptedDataKey


class HsmError(KekkaiError):
    """The HSM refused or failed. Messages name the operation, never its data."""

    reason = "HsmError"
    http_status = 503


class HsmKeyGone(HsmError):
    """The HSM no longer has (or never had) the key: destroyed keys stay destroyed."""

    reason = "HsmKeyGone"
    http_status = 410


@dataclass(frozen=True, slots=True)
class HsmCapabilities:
    """What the probe found. `fallbacks` says in words what is done in software instead."""

    module: str
    token: str
    data_key: str  # AES-GCM | AES-KWP
    ecdsa_p256: str  # hsm | software
    ed25519: str  # hsm | software
    import_wrapping: str  # RSA-OAEP-SHA256 | RSA-OAEP-SHA1
    fallbacks: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "fallbacks": list(self.fallbacks)}


@dataclass(frozen=True, slots=True)
class ImportKey:
    """The public half of the RSA key that wraps imported keys (PEM SPKI)."""

    kid: str
    algorithm: str
    public_key: str


class HsmSession(Protocol):
    """One logged-in session. Not thread-safe. Every method raises HsmError on failure."""

    @property
    def capabilities(self) -> HsmCapabilities: ...

    @property
    def data_key_algorithm(self) -> DataKeyAlgorithm: ...

    def generate_wrapping_key(self) -> bytes:
        """Make a non-extractable AES-256 key that lasts; returns its id (16 bytes)."""

    def wrapping_keys(self) -> list[bytes]:
        """Ids of all wrapping keys in the token."""

    def encrypt_data_key(self, hsm_key_id: bytes, data_key: bytes, aad: bytes) -> EncryptedDataKey:
        """Encrypt a 32-byte data key bound to `aad`."""

    def decrypt_data_key(self, encrypted: EncryptedDataKey, aad: bytes) -> bytes:
        """Inverse; HsmKeyGone if the wrapping key was destroyed."""

    def destroy(self, hsm_key_id: bytes) -> bool:
        """Delete a wrapping key for good; False if it was not there."""

    def random(self, count: int) -> bytes:
        """Bytes from the HSM's generator mixed with the system's."""

    def ear_public_key(self) -> bytes:
        """Uncompressed P-256 point (65 bytes) of the token-signing key."""

    def sign_es256(self, message: bytes) -> bytes:
        """ECDSA P-256 over SHA-256(message): r ‖ s, 64 bytes."""

    def log_public_key(self) -> bytes:
        """Raw Ed25519 public key (32 bytes) of the log."""

    def sign_ed25519(self, message: bytes) -> bytes:
        """Ed25519 signature (64 bytes) with the log's key."""

    def import_key(self) -> ImportKey:
        """The key to wrap imports for, made on first use."""

    def unwrap_import(self, kid: str, wrapped: bytes) -> bytes:
        """Plaintext of an imported key."""

    def health(self) -> None:
        """Raise HsmError if the session no longer works."""
