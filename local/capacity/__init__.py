"""Controllers of others that make machines, played as far as a provider of ours can tell.

Cluster API's MachineDeployment and Karpenter's NodeClaim are the real API objects on the
real API server; what their controllers would buy is a Node object that kwok animates.
Nothing outside `local`, tests and benchmarks may import it.
"""

from local.capacity.cluster_api import ClusterApiController
from local.capacity.definitions import DEFINITIONS
from local.capacity.karpenter import KarpenterController

__all__ = ["DEFINITIONS", "ClusterApiController", "KarpenterController"]
