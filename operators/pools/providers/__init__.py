"""Where machines come from, behind one small protocol. A provider must not know plans or workloads."""

from operators.pools.providers.protocol import (
    Instance,
    OrderRefused,
    OutOfCapacity,
    Provider,
    ProviderError,
    ProviderOrder,
    Providers,
)

__all__ = ["Instance", "OrderRefused", "OutOfCapacity", "Provider", "ProviderError", "ProviderOrder", "Providers"]
