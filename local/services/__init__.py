"""Services that are emulated: replicas that serve a flow of requests, with a real page of metrics over HTTP.

Only what they work on is made up. The page is what prometheus-client writes, so that a real
Prometheus scrapes it and the production code cannot tell it from a service's own.
"""

from __future__ import annotations

from local.services.emulated import EmulatedService, Flow
from local.services.prometheus import Prometheus

__all__ = ["EmulatedService", "Flow", "Prometheus"]
