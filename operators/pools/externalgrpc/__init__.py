"""Pools whose size a stock Cluster Autoscaler says, over its external gRPC protocol.

Such a pool says `scaling.driver: External`; then nothing but this server makes or takes
its Machines. From there on they live as all others do. It must not decide how many
machines there are: the autoscaler does.
"""

from operators.pools.externalgrpc.command_line import add_arguments, check_arguments, serve
from operators.pools.externalgrpc.server import Listening, listen
from operators.pools.externalgrpc.service import CloudProvider

__all__ = ["CloudProvider", "Listening", "add_arguments", "check_arguments", "listen", "serve"]
