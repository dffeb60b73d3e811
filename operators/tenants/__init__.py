"""Tenants: namespaces, rights, limits and networks, in force before the first pod.

One module a concern, each a pure function from the Tenant to the objects it wants;
`controller` owns the order and the one status patch. It must not know queues or keys.
"""

from __future__ import annotations

from operators.runtime import Cluster, Controller, Stores
from operators.tenants.baseline import BaselineController
from operators.tenants.controller import TenantController


def controllers(cluster: Cluster, stores: Stores) -> list[Controller]:
    """The control loops of this package."""
    return [TenantController(cluster, stores), BaselineController(cluster, stores)]
