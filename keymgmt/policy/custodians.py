"""Custodian sets: who speaks for a tenant's keys, and how many of them must agree (M of N)."""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.policy.dsse import Algorithm, Envelope, PublicKey, load_public_key, pae, verify
from keymgmt.policy.errors import PolicyInvalid, QuorumNotMet

MAX_CUSTODIANS = 16
TenantName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Document(BaseModel):
    """Base of signed documents: unknown members are refused, types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class Custodian(Document):
    """One custodian. `publicKey` is base64 SPKI DER; `keyid` names it in signatures."""

    keyid: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._@-]{0,127}$")]
    algorithm: Algorithm
    public_key: Annotated[str, Field(max_length=4096)]

    @cached_property
    def key(self) -> PublicKey:
        """The parsed key. Raises InvalidInput."""
        try:
            der = base64.b64decode(self.public_key, validate=True)
        except ValueError:
            raise InvalidInput("not standard base64", where=f"custodian {self.keyid}") from None
        return load_public_key(der, self.algorithm, f"custodian {self.keyid}")


class CustodianSet(Document):
    """The custodians of one tenant. `replaces` is the digest of the set before, or null for the first."""

    api_version: Literal["kekkai.dev/custodian-set/v1"] = "kekkai.dev/custodian-set/v1"
    tenant: TenantName
    threshold: Annotated[int, Field(ge=1, le=MAX_CUSTODIANS)]
    custodians: Annotated[list[Custodian], Field(min_length=1, max_length=MAX_CUSTODIANS)]
    replaces: Digest | None = None

    @model_validator(mode="after")
    def _sound(self) -> CustodianSet:
        if self.threshold > len(self.custodians):
            raise ValueError("the threshold is larger than the number of custodians")
        if len({c.keyid for c in self.custodians}) != len(self.custodians):
            raise ValueError("a keyid occurs twice")
        if len({c.public_key for c in self.custodians}) != len(self.custodians):
            raise ValueError("a public key occurs twice: one person must not count as two")
        return self

    @cached_property
    def canonical(self) -> bytes:
        """Canonical JSON, custodians sorted by keyid: what the digest is of."""
        document = self.model_dump(mode="json", by_alias=True)
        document["custodians"] = sorted(document["custodians"], key=lambda item: str(item["keyid"]))
        return strict_json.canonical(document)

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical form."""
        return digest_of(self.canonical)


def digest_of(data: bytes) -> str:
    """`sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def raw_digest(digest: str) -> bytes:
    """The 32 bytes of a `sha256:<hex>` digest. Raises InvalidInput."""
    kind, _, text = digest.partition(":")
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if kind != "sha256" or len(raw) != 32 or digest != f"sha256:{raw.hex()}":
        raise InvalidInput("a digest has the form sha256:<64 hex digits>", where=digest[:80])
    return raw


def parse_custodian_set(document: dict[str, Any], where: str = "custodians") -> CustodianSet:
    """Validate a set and load each key. Raises PolicyInvalid or InvalidInput naming the field."""
    try:
        custodian_set = CustodianSet.model_validate(document)
    except ValidationError as error:
        raise invalid(error, where) from None
    for custodian in custodian_set.custodians:
        _ = custodian.key  # raises if it does not parse
    return custodian_set


def invalid(error: ValidationError, where: str) -> PolicyInvalid:
    """The first fault of a validation as our error."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return PolicyInvalid(first["msg"], where=f"{where}.{field}" if field else where)


def require_quorum(envelope: Envelope, custodians: CustodianSet) -> list[str]:
    """The keyids of the custodians that signed, at least `threshold`. Raises QuorumNotMet.

    Each custodian counts once, however many signatures carry its keyid; signatures by
    strangers and bad ones are ignored.
    """
    message = pae(envelope.payload_type, envelope.payload)
    known = {custodian.keyid: custodian for custodian in custodians.custodians}
    signed: set[str] = set()
    for keyid, signature in envelope.signatures:
        custodian = known.get(keyid)
        if custodian is not None and keyid not in signed and verify(custodian.key, message, signature):
            signed.add(keyid)
    if len(signed) < custodians.threshold:
        raise QuorumNotMet(
            f"{len(signed)} of the {custodians.threshold} needed custodians of tenant {custodians.tenant} signed",
            where="signatures",
            fix="have more custodians sign with `kekkai keys policy sign`",
        )
    return sorted(signed)
