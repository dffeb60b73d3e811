"""What a custodian does: turn a document into an envelope, sign it, wrap a key for import."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.policy import payload_types as types
from keymgmt.policy.custodian_keys import keyid_of
from keymgmt.policy.custodians import digest_of, parse_custodian_set
from keymgmt.policy.documents import DestroyOrder, ImportOrder, parse_document, parse_policy
from keymgmt.policy.dsse import Envelope, PrivateKey

_TYPES = {
    "kekkai.dev/release-policy/v1": types.POLICY_TYPE,
    "kekkai.dev/custodian-set/v1": types.CUSTODIAN_SET_TYPE,
    "kekkai.dev/import-order/v1": types.IMPORT_ORDER_TYPE,
    "kekkai.dev/destroy-order/v1": types.DESTROY_ORDER_TYPE,
    "kekkai.dev/ceremony-transcript/v1": types.CEREMONY_TYPE,
}
_OAEP: dict[str, hashes.HashAlgorithm] = {
    "RSA-OAEP-SHA1": hashes.SHA1(),  # noqa: S303 - what SoftHSM offers; OAEP does not rest on collisions
    "RSA-OAEP-SHA256": hashes.SHA256(),
}


def sign_document(
    document: Mapping[str, Any], keys: Sequence[PrivateKey], keyids: Sequence[str] | None = None
) -> Envelope:
    """Sign a plain document, or add signatures to an envelope. The document is checked first.

    `keyids` name the keys as the custodian set does; by default by their fingerprint.
    Raises InvalidInput for a document that the service would refuse anyway.
    """
    envelope = open_document(document)
    check(envelope)
    for key, keyid in zip(keys, keyids or [keyid_of(key) for key in keys], strict=True):
        envelope = envelope.with_signature(keyid, key)
    return envelope


def open_document(document: Mapping[str, Any]) -> Envelope:
    """An envelope as it is, or a new one with the document's canonical form as payload."""
    if "payloadType" in document:
        kind = document["payloadType"]
        if kind not in _TYPES.values():
            raise InvalidInput("unknown payload type", where="payloadType")
        if not document.get("signatures"):
            stand_in = [{"keyid": "none", "sig": "AA=="}]
            return Envelope(kind, Envelope.parse({**document, "signatures": stand_in}, kind).payload, ())
        return Envelope.parse(document, kind)
    kind = _TYPES.get(str(document.get("apiVersion")))
    if kind is None:
        raise InvalidInput("unknown document", where="apiVersion", fix=f"use one of {', '.join(sorted(_TYPES))}")
    return Envelope(kind, strict_json.canonical(document), ())


def check(envelope: Envelope) -> str:
    """Validate the payload by its type; returns its digest. Raises PolicyInvalid."""
    if envelope.payload_type == types.POLICY_TYPE:
        parse_policy(envelope)
    elif envelope.payload_type == types.CUSTODIAN_SET_TYPE:
        parse_custodian_set(strict_json.parse_object(envelope.payload))
    elif envelope.payload_type != types.CEREMONY_TYPE:
        order = ImportOrder if envelope.payload_type == types.IMPORT_ORDER_TYPE else DestroyOrder
        parse_document(envelope, order, "order")
    return digest_of(envelope.payload)


def wrap_for_import(import_key: Mapping[str, Any], key: bytes, pinned_kid: str | None = None) -> tuple[str, str]:
    """Encrypt a key to the HSM's import key (`GET /v1/import-key`). Returns (kid, base64 of the wrapped key).

    With `pinned_kid` (learned on another way) a swapped import key is noticed. Raises InvalidInput.
    """
    hash_algorithm = _OAEP.get(str(import_key.get("algorithm")))
    try:
        public = load_pem_public_key(str(import_key.get("publicKey")).encode())
    except ValueError:
        public = None
    if hash_algorithm is None or not isinstance(public, rsa.RSAPublicKey) or public.key_size < 3072:
        raise InvalidInput("the import key is of no known kind", where="import-key")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    kid = digest.finalize().hex()
    if kid != import_key.get("kid") or pinned_kid not in (None, kid):
        raise InvalidInput("the import key is not the expected one", where="kid", fix="do not send your key to it")
    wrapped = public.encrypt(key, padding.OAEP(padding.MGF1(hash_algorithm), hash_algorithm, None))
    return kid, base64.b64encode(wrapped).decode()


def import_order(
    tenant: str,
    key: str,
    policy_digest: str,
    import_key: Mapping[str, Any],
    material: bytes,
    pinned_kid: str | None = None,
    version: int = 1,
) -> dict[str, Any]:
    """An import order for `key` (namespace/name), ready to be signed. A version above 1 rotates the key."""
    kid, wrapped = wrap_for_import(import_key, material, pinned_kid)
    return {
        "apiVersion": "kekkai.dev/import-order/v1",
        "tenant": tenant,
        "key": key,
        "policyDigest": policy_digest,
        "kid": kid,
        "wrappedKey": wrapped,
        **({"version": version} if version > 1 else {}),
    }


def destroy_order(tenant: str, key: str, key_id: str, reason: str = "", version: int | None = None) -> dict[str, Any]:
    """A destroy order for the very key `key_id`, or one former version of it, ready to be signed."""
    return {
        "apiVersion": "kekkai.dev/destroy-order/v1",
        "tenant": tenant,
        "key": key,
        "keyId": key_id,
        "reason": reason,
        **({"version": version} if version is not None else {}),
    }
