"""Fixtures that many tests share: the real control plane, with Kekkai's kinds and policies on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from local.controlplane import ControlPlane

# How long an example takes says nothing on a machine that runs other things too.
settings.register_profile("kekkai", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kekkai")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One control plane for the whole test process."""
    with ControlPlane.start() as plane:
        yield plane


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with Kekkai's kinds, roles and admission policies in force."""
    from local import stack

    stack.install(control_plane)
    return control_plane
