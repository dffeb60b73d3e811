"""Where a workload stands in its tenant's line."""

from __future__ import annotations

from bisect import bisect_left

from scheduler import Fleet


def position(fleet: Fleet, key: str) -> int | None:
    """Its place among its tenant's pending workloads by priority and age, 1 is the first; None: it does not wait.

    O(priorities × shapes × log pending). The next to start may be another: fair share, quota and room decide that.
    """
    workload = fleet.workloads.get(key)
    if workload is None or key not in fleet.pending:
        return None
    entry, ahead = (workload.created_at, key), 0
    for priority in sorted(fleet.backlog.lines, reverse=True):
        lines = fleet.backlog.lines[priority].get(workload.tenant, {}).values()
        older = [bisect_left(line, entry) for line in lines]
        if any(line[at : at + 1] == [entry] for line, at in zip(lines, older, strict=True)):
            return ahead + sum(older) + 1
        ahead += sum(len(line) for line in lines)
    return None
