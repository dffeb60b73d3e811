"""What runs, by tenant and by priority."""

from __future__ import annotations

from collections import Counter, defaultdict

from scheduler.fleet.state import WorkloadState


class Standing:
    """Kept up to date in time proportional to what changes."""

    def __init__(self) -> None:
        self.of: dict[str, set[str]] = defaultdict(set)  # tenant → its workloads that were admitted and have not ended
        self.priorities_of: dict[str, Counter[int]] = {}  # tenant → priorities of these
        self.priorities: Counter[int] = Counter()  # of all

    def add(self, workload: WorkloadState, priority: int) -> None:
        """It runs now."""
        self.of[workload.tenant].add(workload.key)
        self.priorities_of.setdefault(workload.tenant, Counter())[priority] += 1
        self.priorities[priority] += 1

    def drop(self, workload: WorkloadState, priority: int) -> None:
        """It does not run any more; `priority` as it was added with. Ignored when it did not run."""
        if workload.key not in self.of.get(workload.tenant, ()):
            return
        self.of[workload.tenant].discard(workload.key)
        if not self.of[workload.tenant]:
            del self.of[workload.tenant]
        mine = self.priorities_of[workload.tenant]
        for counted in (mine, self.priorities):
            counted[priority] -= 1
            if not counted[priority]:
                del counted[priority]
        if not mine:
            del self.priorities_of[workload.tenant]
