"""The provider protocol and its errors.

`create` is idempotent by client token: called twice with one token (a lost reply, a
restart) it returns the one instance. An instance is known by its token for all its life;
its provider id, which is also the `spec.providerID` of the node that it becomes, may
come later than the instance does. Every call ends within the provider's own time limit
and raises only ProviderError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from crds.errors import KekkaiError, NotFound

State = Literal["creating", "running", "deleting", "failed"]


class ProviderError(KekkaiError):
    """The provider failed or did not answer in time; the same call may succeed later."""

    reason = "ProviderFailed"
    http_status = 502


class OutOfCapacity(ProviderError):
    """The provider has no such machine now, or its quota is used up."""

    reason = "OutOfCapacity"
    http_status = 503


class OrderRefused(ProviderError):
    """The provider will never accept this order as it is."""

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

    provider_id: str  # empty: not known yet
    client_token: str
    machine: str  # the Machine that it was made for, as far as the provider remembers
    state: State = "running"
    fault: str = ""  # of a failed one: what the provider says
    created_at: float = 0.0  # seconds since the epoch; 0: the provider does not say
    node: str = ""  # name of its node, where the provider knows
    system_uuid: str = ""  # by which its node is known when nobody gave that a provider id


class Provider(Protocol):
    """One source of machines."""

    scheme: str
    """Its key under spec.provider of a pool, and the scheme of those provider ids that it makes itself."""

    async def create(self, order: ProviderOrder) -> Instance:
        """Make it, or find the one with this token. Raises ProviderError."""
        ...

    async def get(self, pool: str, client_token: str) -> Instance | None:
        """The instance of this token, None when there is none. Raises ProviderError."""
        ...

    async def delete(self, pool: str, client_token: str) -> bool:
        """Start or go on with its removal. True once it is gone, or never was. Raises ProviderError."""
        ...

    async def list(self) -> Iterable[tuple[str, Instance]]:
        """(pool, instance) of all that carries this cluster's mark; nobody else's. Raises ProviderError."""
        ...

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        """What the provider asks for one such machine an hour, in the pool's currency; None: it does not say."""
        ...


class Providers:
    """The providers of this operator, by scheme."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._by_scheme: dict[str, Provider] = {provider.scheme: provider for provider in providers}

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
        """The provider that gave this id, if it gives ids itself."""
        scheme, separator, _ = provider_id.partition("://")
        return self._by_scheme.get(scheme) if separator else None


def token_of(provider_id: str) -> str:
    """The client token, which is the last part of a provider id that we make (`scheme://site/token`)."""
    return provider_id.rpartition("/")[2]
