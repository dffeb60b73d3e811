"""Signed documents: release policies and orders. Their digest is of the payload bytes as signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from keymgmt import strict_json
from keymgmt.policy import rule as rules
from keymgmt.policy.custodians import Digest, Document, TenantName, digest_of, invalid
from keymgmt.policy.dsse import Envelope
from keymgmt.policy.errors import PolicyInvalid

KeyName = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,62}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}$")]
Jurisdiction = Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})$")]
# release: the key is given to the guest. The others: the service uses it for the guest, and keeps it.
Operation = Literal["release", "encrypt", "decrypt", "data-key", "sign"]


def _release_alone() -> list[Operation]:
    return ["release"]


MAX_RELEASES = 1_000_000_000
D = TypeVar("D", bound=Document)


class ExternalKey(Document):
    """The custodians' own key service (HYOK). `certificate`: PEM, the only one that its TLS may rest on."""

    url: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._/-]{0,128})?$")]
    certificate: Annotated[str, Field(min_length=1, max_length=16384)]


class ReleasePolicy(Document):
    """`kekkai.dev/release-policy/v1`: when, where, to whom and how often keys may be released."""

    api_version: Literal["kekkai.dev/release-policy/v1"]
    tenant: TenantName
    keys: Annotated[list[KeyName], Field(min_length=1, max_length=64)]
    rule: Annotated[str, Field(min_length=1, max_length=rules.MAX_RULE)]
    max_releases: Annotated[int, Field(ge=1, le=MAX_RELEASES)]
    not_before: Moment
    not_after: Moment
    jurisdiction: Jurisdiction
    operations: Annotated[list[Operation], Field(min_length=1, max_length=5, default_factory=_release_alone)]
    external_key: ExternalKey | None = None
    replaces: Digest | None = None

    @field_validator("not_before", "not_after")
    @classmethod
    def _real(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _sound(self) -> ReleasePolicy:
        if not self.begins < self.ends:
            raise ValueError("notAfter is not after notBefore")
        if self.external_key is not None and self.operations != ["release"]:
            raise ValueError("a key that stays with its custodians is only released: operations must be [release]")
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("a key is listed twice")
        return self

    @property
    def begins(self) -> datetime:
        """notBefore as a time."""
        return datetime.fromisoformat(self.not_before).astimezone(UTC)

    @property
    def ends(self) -> datetime:
        """notAfter as a time; the policy is no longer in force at that moment."""
        return datetime.fromisoformat(self.not_after).astimezone(UTC)


class ImportOrder(Document):
    """`kekkai.dev/import-order/v1`: put this wrapped key (BYOK) under this name and policy."""

    api_version: Literal["kekkai.dev/import-order/v1"]
    tenant: TenantName
    key: KeyName
    policy_digest: Digest
    kid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    wrapped_key: Annotated[str, Field(max_length=8192)]  # standard base64
    version: Annotated[int, Field(ge=1, lt=1 << 31)] = 1  # above 1: rotate an imported key


class DestroyOrder(Document):
    """`kekkai.dev/destroy-order/v1`: destroy this key for ever. `keyId` pins the very key meant."""

    api_version: Literal["kekkai.dev/destroy-order/v1"]
    tenant: TenantName
    key: KeyName
    key_id: Annotated[str, Field(min_length=1, max_length=255)]
    reason: Annotated[str, Field(max_length=256)] = ""
    version: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None  # only this former version


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A policy with the envelope it came in and the digest of its payload."""

    envelope: Envelope
    policy: ReleasePolicy
    digest: str


def parse_policy(envelope: Envelope) -> SignedPolicy:
    """Validate a policy, its rule included. Signatures are the caller's business. Raises PolicyInvalid."""
    policy = parse_document(envelope, ReleasePolicy, "policy")
    rules.compile_rule(policy.rule)
    return SignedPolicy(envelope, policy, digest_of(envelope.payload))


def parse_document(envelope: Envelope, kind: type[D], where: str) -> D:
    """Validate an envelope's payload as a document. Raises PolicyInvalid."""
    try:
        return kind.model_validate(strict_json.parse_object(envelope.payload, limit=64 * 1024, where=where))
    except ValidationError as error:
        raise invalid(error, where) from None


__all__ = [
    "DestroyOrder",
    "ImportOrder",
    "PolicyInvalid",
    "ReleasePolicy",
    "SignedPolicy",
    "parse_document",
    "parse_policy",
]
