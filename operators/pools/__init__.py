"""Machines: made when the plan asks, followed through launch, registration and initialization, drained and removed.

One module a step of a Machine's life; `providers` hides where machines come from. It
must not decide how many machines there are: that is the plan's.
"""

from __future__ import annotations

import time

from operators.planning.feed import Feed
from operators.pools.backoff import Backoff
from operators.pools.controller import PoolController, SiteController
from operators.pools.leaks import LeakController
from operators.pools.machines import MachineController
from operators.pools.ordering import Ordering
from operators.pools.providers import Provider, Providers
from operators.pools.providers.cluster_api import ClusterApiProvider
from operators.pools.providers.externalgrpc import ExternalGrpcProvider
from operators.pools.providers.karpenter import KarpenterProvider
from operators.pools.providers.kwok import KwokProvider
from operators.pools.providers.redfish import RedfishProvider
from operators.pools.providers.watched import Watched
from operators.pools.repair import RepairBoard, RepairController
from operators.runtime import Cluster, Controller, Stores


def controllers(cluster: Cluster, stores: Stores, feed: Feed) -> list[Controller]:
    """The controllers of this operator, to be run beside the planner over the same feed."""
    made: list[Provider] = [
        KwokProvider(cluster, stores),
        RedfishProvider(cluster),
        ClusterApiProvider(cluster, stores),
        KarpenterProvider(cluster),
        ExternalGrpcProvider(cluster),
    ]
    providers = Providers(Watched(provider) for provider in made)
    backoff = Backoff(time.monotonic)
    board = RepairBoard()
    return [
        Ordering(cluster, stores, feed.decisions, backoff),
        MachineController(cluster, stores, providers, backoff),
        LeakController(cluster, stores, providers),
        PoolController(cluster, stores, feed, providers, board),
        RepairController(cluster, stores, board),
        SiteController(cluster, stores),
    ]
