"""Step 1: ask the provider for the machine. The Machine object, with its token, was written before."""

from __future__ import annotations

from crds.conditions import LAUNCHED
from operators.pools.providers import Instance, OrderRefused, OutOfCapacity, ProviderError, ProviderOrder
from operators.pools.scope import Scope
from scheduler.objects.node_shape import capacity, machine_labels, startup_taint

THROTTLED = "Throttled"
_AGAIN = {OutOfCapacity: 30.0, OrderRefused: 300.0}  # seconds; other failures come again after 5 s
_LOOK = 10.0  # seconds between two questions about a machine that has not joined


def order_of(scope: Scope) -> ProviderOrder:
    """The order for this Machine."""
    assert scope.pool is not None
    return ProviderOrder(
        machine=scope.name,
        client_token=scope.token,
        pool=scope.pool,
        labels=machine_labels(scope.pool, scope.machine),
        capacity=capacity(scope.pool),
        taints=(startup_taint(),),
    )


def hold_back(scope: Scope) -> tuple[str, str] | None:
    """(reason, message) while the machine may not be launched yet."""
    if scope.pool is None or scope.provider is None:
        return "PoolNotFound", "its AcceleratorPool does not exist, or names no provider of this operator"
    most = (scope.pool["spec"].get("scaling") or {}).get("maxConcurrentLaunches", 100)
    if scope.starting >= most:
        return THROTTLED, f"{scope.starting} machines of the pool are starting, the most that may"
    return None


async def launch(scope: Scope) -> float | None:
    """Make sure that the provider has it. Returns seconds until the next try, if one is due."""
    if scope.is_true(LAUNCHED):
        return None
    why = hold_back(scope)
    if why is not None:
        scope.set(LAUNCHED, False, *why)
        return 2.0
    assert scope.provider is not None
    try:
        instance = await scope.provider.create(order_of(scope))
    except ProviderError as error:
        scope.set(LAUNCHED, False, error.problem.reason, str(error))
        return _AGAIN.get(type(error), 5.0)
    take_in(scope, instance)
    scope.set(LAUNCHED, True, LAUNCHED, instance.provider_id or "the provider makes it")
    return None


async def follow(scope: Scope) -> float | None:
    """While it has not joined: ask the provider at a steady pace. Returns seconds until the next time."""
    if scope.provider is None:
        return None
    if scope.instance is not None:
        return _LOOK  # it was made in this very visit
    pause = scope.pause("provider", _LOOK)
    if pause > 0:
        return pause
    try:
        instance = await scope.provider.get(scope.pool_name, scope.token)
    except ProviderError:
        return _LOOK  # the deadline for joining goes on meanwhile
    if instance is None:
        scope.doomed = "the provider has it no more, and it had not joined"
    else:
        take_in(scope, instance)
    return _LOOK


def take_in(scope: Scope, instance: Instance) -> None:
    """Note what the provider says of it."""
    scope.instance = instance
    scope.provider_id = instance.provider_id or scope.provider_id
    if instance.state == "failed":
        scope.doomed = instance.fault or "the provider says that it failed"
