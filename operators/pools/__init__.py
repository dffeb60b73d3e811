"""Machines: made when the plan asks, followed through launch, registration and initialization, drained and removed.

One module a step of a Machine's life; `providers` hides where machines come from. It
must not decide how many machines there are: that is the plan's.
"""

from __future__ import annotations

from operators.planning.feed import Feed
from operators.pools.controller import PoolController, SiteController
from operators.pools.machines import MachineController
from operators.pools.ordering import Ordering
from operators.pools.providers import Providers
from operators.pools.providers.kwok import KwokProvider
from operators.runtime import Cluster, Controller, Stores


def controllers(cluster: Cluster, stores: Stores, feed: Feed) -> list[Controller]:
    """The controllers of this operator, to be run beside the planner over the same feed."""
    providers = Providers([KwokProvider(cluster, stores)])
    return [
        Ordering(cluster, stores, feed.decisions),
        MachineController(cluster, stores, providers),
        PoolController(cluster, stores, feed, providers),
        SiteController(cluster, stores),
    ]
