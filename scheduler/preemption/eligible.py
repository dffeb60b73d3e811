"""Which running work may go for a claim, and by which right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scheduler.preemption.decision import Claim, Why
from scheduler.preemption.entitlements import Entitlements
from scheduler.preemption.standing import Standing
from scheduler.running.columns import Columns

Codes = NDArray[np.int8]
NOT, PRIORITY, RECLAIM, COHORT = 0, 1, 2, 3
WORDS: dict[int, Why] = {PRIORITY: "priority", RECLAIM: "reclaim", COHORT: "cohort"}


def eligible(claim: Claim, accelerator: str, running: Columns, standing: Standing, rights: Entitlements) -> Codes:
    """By item: NOT, or the right by which it may go. The rules are in the package's docstring.

    `accelerator`: the class that the claimant would use. One that asks for no devices, or that
    exceeds its own limit, has claims on its own tenant only.
    """
    right: Codes = np.zeros(2 * running.live.size, dtype=np.int8)
    devices = claim.ask.devices
    lower = running.live & running.preemptible & (running.priority < claim.priority)
    own = running.tenant == (running.tenants.index(claim.tenant) if claim.tenant in running.tenants else -1)
    guaranteed = devices == 0 or standing.guaranteed(claim.tenant, accelerator, claim.priority, devices)
    for part in (0, 1):
        may = lower & own
        if not guaranteed:
            may &= standing.borrowed[part::2] | (running.devices.sum(axis=1) == 0)
        right[part::2][may] = PRIORITY
    if devices == 0:
        return right
    others = running.live & running.preemptible & ~own
    if accelerator in running.accelerators:
        others &= running.accelerator == running.accelerators.index(accelerator)
    borrowed = standing.borrowed.reshape(-1, 2) & others[:, None]
    lenders, cohort = np.zeros(len(running.tenants), dtype=np.bool_), np.zeros(len(running.tenants), dtype=np.bool_)
    reclaims = rights.within_nominal(claim.tenant, accelerator, devices)
    for code in np.unique(running.tenant[borrowed.any(axis=1)]).tolist():
        other = running.tenants[code]
        lenders[code] = reclaims and rights.may_reclaim_from(claim.tenant, other, accelerator, devices)
        cohort[code] = rights.same_cohort(claim.tenant, other)
    for part in (0, 1):
        mine = right[part::2]
        mine[borrowed[:, part] & cohort[running.tenant] & lower] = COHORT
        mine[borrowed[:, part] & lenders[running.tenant]] = RECLAIM
    return right
