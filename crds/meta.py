"""What all models share: field naming, CEL rules as data, object metadata."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict


def rule(expression: str, message: str) -> JsonDict:
    """One CRD CEL validation. The message names the field and the fix."""
    return {"rule": expression, "message": message}


def checked(*rules: JsonDict, **extra: Any) -> ConfigDict:
    """A model configuration that carries CEL rules into the generated schema."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": list(rules), **extra})


def constrained(*rules: JsonDict, **extra: Any) -> JsonDict:
    """`json_schema_extra` of a field that carries CEL rules."""
    return {"x-kubernetes-validations": list(rules), **extra}


IMMUTABLE = "self == oldSelf"


class Model(BaseModel):
    """Base of all API types: camelCase on the wire, snake_case in Python."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def wire(self) -> dict[str, Any]:
        """The JSON form, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(Model):
    """The part of metadata that our code reads."""

    name: str
    namespace: str | None = None
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Resource(Model):
    """A whole object. Subclasses add `spec` and `status`."""

    api_version: str
    kind: str
    metadata: ObjectMeta

    @classmethod
    def parse(cls, body: Any) -> Self:
        """From the API server's JSON."""
        return cls.model_validate(body)


DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
DnsName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
CountryCode = Annotated[str, Field(pattern=r"^[A-Z]{2}$", max_length=2)]
"""ISO 3166-1 alpha-2."""
AcceleratorClass = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=63)]
ResourceName = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        max_length=128,
    ),
]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
