"""Keeps a set of processes: starts them, restarts what dies, and leaves no orphan.

One supervisor process owns all children. It ends when its owner goes away (the pipe on
its standard input closes, or it has another parent), unless the owner has detached it;
and the kernel kills the children when it dies itself (PR_SET_PDEATHSIG). Clients speak to
it over a Unix socket. It knows nothing about Kubernetes.
"""

from local.controlplane.supervision.client import ProcessState, Supervisor, SupervisorError

__all__ = ["ProcessState", "Supervisor", "SupervisorError"]
