"""The two tenants that try to get at each other and at the cluster."""

from __future__ import annotations

import pytest

from local.controlplane import ControlPlane
from tests.integration.tenants_harness import Tenants, two_tenants


@pytest.fixture(scope="session")
def tenants(installed: ControlPlane) -> Tenants:
    return two_tenants(installed)
