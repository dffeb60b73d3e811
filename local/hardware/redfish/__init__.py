"""Servers that are not there: the baseboard management controllers of a rack, as `sushy-emulator` plays them,
and the kubelets that would start when a server is powered on.

Production code meets them by Redfish and as Nodes. Nothing outside `local`, tests and
benchmarks may import it.
"""

from local.hardware.redfish.farm import Farm
from local.hardware.redfish.kubelets import Kubelets

__all__ = ["Farm", "Kubelets"]
