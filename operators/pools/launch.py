"""Step 1: ask the provider for the machine. The Machine object, with its token, was written before."""

from __future__ import annotations

from crds.conditions import LAUNCHED
from operators.pools.providers import OrderRefused, OutOfCapacity, ProviderError, ProviderOrder
from operators.pools.scope import Scope
from scheduler.objects.node_shape import capacity, machine_labels, startup_taint

_AGAIN = {OutOfCapacity: 30.0, OrderRefused: 300.0}  # seconds; other failures come again after 5 s


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
        return "Throttled", f"{scope.starting} machines of the pool are starting, the most that may"
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
    scope.provider_id = instance.provider_id
    scope.set(LAUNCHED, True, LAUNCHED, instance.provider_id)
    return None
