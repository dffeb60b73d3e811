"""The provider protocol and its errors.

`create` is idempotent by client token: called twice with one token (a lost reply, a
restart) it returns the one instance. An instance is known by its provider id, which is
also the `spec.providerID` of the node that it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from crds.errors import KekkaiError, NotFound


class ProviderError(KekkaiError):
    """The provider failed; the same call may succeed later."""

    reason = "ProviderFailed"
    http_status = 502


class OutOfCapacity(ProviderError):
    """The provider has no such machine now."""

    reason = "OutOfCapacity"
    http_status = 503


class OrderRefused(ProviderError):
    """The provider will never accept this order."""

    reason = "OrderRefused"
    http_status = 422


@dataclass(frozen=True, slots=True)
class ProviderOrder:
    """What to make. Labels, capacity and taints are those that the node is to register with."""

    machine: str
    client_token: str
    pool: Mapping[str, Any]
    labels: Mapping[str, str]
    capacity: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine as its provider sees it."""

    provider_id: str
    client_token: str
    machine: str  # the Machine that it was made for, as far as the provider remembers


class Provider(Protocol):
    """One source of machines."""

    scheme: str
    """The scheme of its provider ids, and its key under spec.provider of a pool."""

    async def create(self, order: ProviderOrder) -> Instance:
        """Make it, or find the one with this token. Raises ProviderError."""
        ...

    async def get(self, client_token: str) -> Instance | None:
        """The instance of this token, None when there is none. Raises ProviderError."""
        ...

    async def delete(self, client_token: str) -> bool:
        """Start or go on with its removal. True once it is gone. Raises ProviderError."""
        ...

    async def list(self) -> Iterable[Instance]:
        """All that it made for this cluster. Raises ProviderError."""
        ...


class Providers:
    """The providers of this operator, by scheme."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._by_scheme = {provider.scheme: provider for provider in providers}

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._by_scheme.values())

    def of_pool(self, pool: Mapping[str, Any]) -> Provider:
        """The provider that a pool names. Raises NotFound."""
        for scheme in pool["spec"]["provider"]:
            if scheme in self._by_scheme:
                return self._by_scheme[scheme]
        raise NotFound(
            "no provider of this operator is named",
            where="spec.provider",
            fix=f"name one of {', '.join(sorted(self._by_scheme))}",
            reason="ProviderNotFound",
        )

    def of_id(self, provider_id: str) -> Provider | None:
        """The provider that gave this id."""
        scheme, separator, _ = provider_id.partition("://")
        return self._by_scheme.get(scheme) if separator else None


def token_of(provider_id: str) -> str:
    """The client token, which is the last part of a provider id (`scheme://site/token`)."""
    return provider_id.rpartition("/")[2]
