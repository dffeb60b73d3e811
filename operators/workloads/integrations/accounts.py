"""Whose word makes an object a part of a queued one: the service accounts of the kinds' controllers.

A Job that says it is of a JobSet is left to that JobSet's controller only when that
controller made it. This is the one table; the admission policies 10, 12, 20 and 24 name
the same accounts, which a test checks. Their namespaces are the platform's own: nobody
of a tenant can make a service account there.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTROLLERS: Mapping[str, tuple[str, ...]] = {
    "JobSet": ("system:serviceaccount:jobset-system:jobset-controller-manager",),
    "RayJob": tuple(
        f"system:serviceaccount:{namespace}:kuberay-operator"
        for namespace in ("default", "kuberay-operator", "kuberay-system", "ray-system")
    ),
    "TrainJob": tuple(
        f"system:serviceaccount:{namespace}:kubeflow-trainer-controller-manager"
        for namespace in ("kubeflow-system", "kubeflow")
    ),
}
"""Kind of the owner → the user names of its controller, as its makers' manifests install it."""
