"""A real Kubernetes control plane on one machine: etcd, API server, controllers, scheduler, kwok.

`ControlPlane.start()` finds or builds the binaries, makes certificates, and runs the
processes under a supervisor that leaves no orphan. It knows nothing of Kekkai's own
operators or key service: `local.stack` puts those on top.
"""

from local.controlplane.plane import ControlPlane, ControlPlaneError

__all__ = ["ControlPlane", "ControlPlaneError"]
