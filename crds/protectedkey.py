"""ProtectedKey: a key of a tenant that the key service holds and releases only to proven enclaves.

The object is a request, never the authority: what the key service accepted is in the
status, and a cluster administrator who edits the policy digest here changes nothing,
since the digest is bound into the sealed key and only the custodians can replace it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import IMMUTABLE, CountryCode, Model, Resource, Sha256, checked, constrained, rule


class ReleasePolicyRef(Model):
    """Which custodian-signed policy governs release."""

    digest: Sha256 = Field(description="SHA-256 of the signed policy document.")


class Rotation(Model):
    """When the key gets its next version by itself. Former versions stay readable until the custodians destroy them."""

    interval_days: int = Field(ge=1, le=3650, description="Days between versions (SP 800-57 part 1, section 5.3.6).")
    grace_days: int = Field(default=0, ge=0, le=3650, description="Days for which the former version stays active.")


class ProtectedKeySpec(Model):
    """What the tenant asks the key service for."""

    model_config = checked(
        rule(
            "(self.purpose == 'signature') == (self.algorithm != 'AES-256-GCM')",
            "spec.algorithm: purpose signature takes ED25519 or ML-DSA-65, data-encryption takes AES-256-GCM",
        )
    )
    purpose: Literal["data-encryption", "signature"] = Field(
        default="data-encryption",
        description="What the key is for (SP 800-57 part 1, section 5.2: one key, one use).",
    )
    algorithm: Literal["AES-256-GCM", "ED25519", "ML-DSA-65"] = Field(
        default="AES-256-GCM",
        description="AES-256-GCM encrypts data; ED25519 and ML-DSA-65 (post-quantum, FIPS 204) sign.",
        json_schema_extra=constrained(rule(IMMUTABLE, "spec.algorithm cannot change; make a new ProtectedKey")),
    )
    origin: Literal["generate", "import", "external"] = Field(
        default="generate",
        description="generate: made in the key service. import: brought by the custodians (BYOK). "
        "external: stays in the custodians' own key service (HYOK).",
        json_schema_extra=constrained(rule(IMMUTABLE, "spec.origin cannot change; make a new ProtectedKey")),
    )
    jurisdiction: CountryCode = Field(
        description="Country in which it may be released.",
        json_schema_extra=constrained(rule(IMMUTABLE, "spec.jurisdiction cannot change; make a new ProtectedKey")),
    )
    rotation: Rotation | None = Field(
        default=None,
        description="Rotation of a generated key. An imported one is rotated by its custodians.",
    )
    release_policy: ReleasePolicyRef


class ProtectedKeyStatus(Model):
    """What the key service answered."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    key_id: str = Field(default="", max_length=128, alias="keyID")
    version: int = Field(default=0, ge=0)
    state: str = Field(default="", max_length=32, description="SP 800-57 state, as the key service reports it.")
    policy_digest: str = Field(default="", max_length=71, description="The policy in force, bound into the sealed key.")
    custodian_set: str = Field(default="", max_length=71)
    releases: int = Field(default=0, ge=0, description="Releases logged so far.")
    log_index: int | None = Field(default=None, ge=0, description="Entry of its creation in the transparency log.")


class ProtectedKey(Resource):
    """A key that is released only to proven enclaves."""

    kind: Literal["ProtectedKey"] = "ProtectedKey"
    spec: ProtectedKeySpec
    status: ProtectedKeyStatus = Field(default_factory=ProtectedKeyStatus)
