"""ProtectedKeys: what the cluster asks of the key service, and what the key service answered.

Nothing here sees a key. The object is a request; the authority is the key service.
"""

from __future__ import annotations

from operators.keys.controller import KeyController
from operators.keys.service import KeyServiceClient
from operators.runtime import Cluster, Controller, Stores


def controllers(cluster: Cluster, stores: Stores, service: KeyServiceClient) -> list[Controller]:
    """The control loops of this package."""
    return [KeyController(cluster, stores, service)]
