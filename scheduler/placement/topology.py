"""Placing a gang inside one domain of fast links."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.placement.bestfit import Assignment, Ints, Mask, capacity, fit_gang

LEVELS = ("nvlinkDomain", "rack", "block", "zone", "site")


def fit_in_domain(
    free: Ints, requests: Sequence[Ints], counts: Sequence[int], eligible: Sequence[Mask], domains: Sequence[str]
) -> Assignment | None:
    """Place the gang within one domain: the one where the least room is left over. None when no domain takes it.

    `domains`: the domain of each row; "" is no domain, and nothing is placed there.
    """
    names = np.array(domains)
    totals: list[tuple[int, str]] = []
    for domain in sorted(set(domains) - {""}):
        inside = names == domain
        room = [capacity(free, request, mask & inside) for request, mask in zip(requests, eligible, strict=True)]
        if all(int(np.minimum(r, c).sum()) >= c for r, c in zip(room, counts, strict=True)):
            totals.append((int(np.minimum(room[0], 1 << 20).sum()), domain))
    for _, domain in sorted(totals):
        inside = names == domain
        placed = fit_gang(free, requests, counts, [mask & inside for mask in eligible])
        if placed is not None:
            return placed
    return None
