"""SecurityBaseline: the one master of security settings, from which policies are derived."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import DnsLabel, Model, Resource, checked, rule


class PodSecurity(Model):
    """Pod Security Standard of tenant namespaces."""

    level: Literal["baseline", "restricted"] = Field(default="restricted", description="Level that is enforced.")


class Images(Model):
    """Which images tenants may run."""

    allowed_prefixes: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default_factory=list,
        max_length=64,
        description="An image reference must start with one of these; any when empty.",
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.all(p, p.endsWith('/') || p.contains('@') || p.contains(':'))",
                    "spec.images.allowedPrefixes[] must end with '/' or hold a tag or digest, so that a longer name cannot pass for it",
                )
            ]
        },
    )
    require_digest: bool = Field(default=False, description="Images must be named by digest (@sha256:…).")


class RuntimeClasses(Model):
    """Which runtime classes tenants may use."""

    allowed: list[DnsLabel] = Field(
        default_factory=lambda: ["kata-qemu-snp", "kata-qemu-tdx"],
        max_length=32,
        description="Runtime classes beside the node's default.",
    )


class SecurityBaselineSpec(Model):
    """Settings that hold for every tenant."""

    pod_security: PodSecurity = Field(default_factory=PodSecurity)
    images: Images = Field(default_factory=Images)
    runtime_classes: RuntimeClasses = Field(default_factory=RuntimeClasses)


class SecurityBaselineStatus(Model):
    """What the operators observed."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0


class SecurityBaseline(Resource):
    """The security master. The one named `default` is in force."""

    model_config = checked(
        rule("self.metadata.name == 'default'", "metadata.name must be 'default': there is one security master"),
    )
    kind: Literal["SecurityBaseline"] = "SecurityBaseline"
    spec: SecurityBaselineSpec = Field(default_factory=SecurityBaselineSpec)
    status: SecurityBaselineStatus = Field(default_factory=SecurityBaselineStatus)
