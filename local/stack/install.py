"""Puts the kinds, roles and admission policies onto a control plane, and waits until they are in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from local.controlplane import ControlPlane
from operators import admission, rbac
from operators.runtime import Cluster

CRDS = Path(__file__).resolve().parents[2] / "crds" / "manifests"
HARDWARE_ROLES = Path(__file__).resolve().parents[1] / "hardware" / "rbac.yaml"


def install(plane: ControlPlane) -> None:
    """Idempotent. Policies are enforced when this returns."""
    plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS))
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(rbac.manifests()))
    if HARDWARE_ROLES.exists():
        plane.kubectl("apply", "--server-side", "-f", str(HARDWARE_ROLES))
    asyncio.run(_policies(plane))


async def _policies(plane: ControlPlane) -> None:
    async with await Cluster.connect(plane.admin_kubeconfig) as cluster:
        await admission.install(cluster)
