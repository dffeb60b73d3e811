"""What to buy for all that waits: from pods and offerings to machine orders of the least cost, pure.

Equal pods are one group, so that the work grows with the shapes and the offerings, not with
the pods. Nodes are filled by whole patterns (how many pods of each group), chosen by what
they cover for their price, then repaired by taking the worst apart again. Fit and
eligibility are placement's own (`scheduler.placement.bestfit`, `eligibility`), so that what
is bought is what placement then uses. It must not know how machines are made, nor who is
first in the queue.
"""

from scheduler.autoscale.purchase.buying import purchase
from scheduler.autoscale.purchase.demand import (
    BoughtNode,
    Bounds,
    Demand,
    Offering,
    Order,
    Purchase,
    Room,
)

__all__ = ["BoughtNode", "Bounds", "Demand", "Offering", "Order", "Purchase", "Room", "purchase"]
