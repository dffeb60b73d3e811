"""Step 5: the provider takes the machine back; when nothing is left, the Machine object may go."""

from __future__ import annotations

from crds.conditions import LAUNCHED
from operators.pools.providers import ProviderError
from operators.pools.scope import Scope

_AGAIN = 2.0


async def remove(scope: Scope) -> float | None:
    """Give it back. Asked by token even if no launch is on record: the reply of one may have been lost."""
    if scope.provider is None:
        # Without its pool the provider id says whose it is; with neither, nothing was ever made.
        scope.gone = not scope.is_true(LAUNCHED)
        return None if scope.gone else _AGAIN
    try:
        scope.gone = await scope.provider.delete(scope.token)
    except ProviderError as error:
        scope.set(LAUNCHED, scope.is_true(LAUNCHED), error.problem.reason, str(error))
        return 5.0
    return None if scope.gone else _AGAIN
