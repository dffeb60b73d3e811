"""Step 5: the provider takes the machine back, its Node goes; when nothing is left, the Machine object may go."""

from __future__ import annotations

from crds.conditions import LAUNCHED
from operators.pools.providers import ProviderError
from operators.pools.scope import Scope
from operators.runtime import RESOURCES

_AGAIN = 2.0


async def remove(scope: Scope) -> float | None:
    """Give it back. Asked by token even if no launch is on record: the reply of one may have been lost."""
    if scope.provider is None:
        # Without its pool the provider id says whose it is; with neither, nothing was ever made.
        scope.gone = not scope.is_true(LAUNCHED)
        return None if scope.gone else _AGAIN
    try:
        gone = await scope.provider.delete(scope.pool_name, scope.token)
    except ProviderError as error:
        scope.set(LAUNCHED, scope.is_true(LAUNCHED), error.problem.reason, str(error))
        return 5.0
    if gone:
        await _forget_node(scope)
    scope.gone = gone
    return None if scope.gone else _AGAIN


async def _forget_node(scope: Scope) -> None:
    """A Node outlives its machine where nobody plays the cloud's controller."""
    node = scope.node
    if node is None:
        return
    meta = node["metadata"]
    await scope.cluster.delete(RESOURCES["Node"], meta["name"], uid=meta.get("uid", ""))
    scope.stores.forget(node)
