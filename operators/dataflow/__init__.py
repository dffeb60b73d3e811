"""Services that follow the flow of their data: reads signals, asks scheduler.dataflow, applies what it says.

A Workload with `spec.service` names a Deployment or StatefulSet; its replicas, the bandwidth
of its pods and the class of its volumes are set here. Which pod runs where and when is the
queue's: every replica is queued as a pod by itself, so quota holds whatever is asked for.
Nothing here decides a number.
"""

from __future__ import annotations

from operators.dataflow.controller import DataFlowController
from operators.dataflow.prometheus import Prometheus
from operators.dataflow.readings import Readings
from operators.dataflow.signals import SignalReader
from operators.runtime import Cluster, Controller, Stores


def controllers(
    cluster: Cluster, stores: Stores, prometheus: Prometheus | None, readings: Readings | None = None
) -> list[Controller]:
    """The controller of this operator. `readings`: where the external metrics API takes its values from."""
    return [DataFlowController(cluster, stores, SignalReader(prometheus), readings or Readings())]


__all__ = ["DataFlowController", "Prometheus", "Readings", "SignalReader", "controllers"]
