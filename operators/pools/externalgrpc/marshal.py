"""Kubernetes objects inside of messages: a template Node out, a pod's requests in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from crds.errors import InvalidInput
from operators.pools.externalgrpc.wire import core_pb2
from scheduler.objects.node_shape import capacity, pool_labels


def template_node(pool: Mapping[str, Any]) -> bytes:
    """A node of this pool as if just started, as v1.Node#Marshal would write it."""
    name = f"{pool['metadata']['name']}-template"
    amounts = {resource: core_pb2.Quantity(string=text) for resource, text in sorted(capacity(pool).items())}
    node = core_pb2.Node(
        metadata=core_pb2.ObjectMeta(name=name, labels={**pool_labels(pool), "kubernetes.io/hostname": name}),
        spec=core_pb2.NodeSpec(),
        status=core_pb2.NodeStatus(
            capacity=amounts,
            allocatable=amounts,
            conditions=[core_pb2.NodeCondition(type="Ready", status="True", reason="Template")],
        ),
    )
    return node.SerializeToString(deterministic=True)


def pod_spec(data: bytes) -> dict[str, Any]:
    """nodeSelector, and the requests of containers, of a marshalled v1.Pod. Raises InvalidInput."""
    try:
        pod = core_pb2.Pod.FromString(data)
    except DecodeError as error:
        raise InvalidInput("it is no marshalled v1.Pod", where="pod_bytes", fix="send v1.Pod#Marshal()") from error
    return {
        "nodeSelector": dict(pod.spec.nodeSelector),
        "containers": [_container(one) for one in pod.spec.containers],
        "initContainers": [_container(one) for one in pod.spec.initContainers],
    }


def _container(one: core_pb2.Container) -> dict[str, Any]:
    limits = {resource: amount.string for resource, amount in one.resources.limits.items()}
    # As admission does it: what is limited and not requested is requested in full.
    requests = limits | {resource: amount.string for resource, amount in one.resources.requests.items()}
    return {"name": one.name, "resources": {"requests": requests, "limits": limits}}
