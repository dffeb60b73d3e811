"""The progress of one workload: work done, work lost, and when it will end."""

from __future__ import annotations

import math

from scheduler.simulate.outcome import Arrival, Record


class Run:
    """Work is in seconds with all pods; it goes on at `rate` from `since` on, while `working`."""

    def __init__(self, arrival: Arrival, devices: int) -> None:
        self.arrival = arrival
        self.devices = devices
        limit = arrival.workload.max_runtime
        self.left = min(arrival.duration, limit) if limit > 0 else arrival.duration
        self.rate = 1.0
        self.since = 0.0
        self.working = False
        self.generation = 0  # of its starts: an end that was foreseen for an earlier one does not count
        self.started: float | None = None
        self.ended: float | None = None
        self.evictions = 0
        self.lost = 0.0

    @property
    def ends_at(self) -> float:
        """When it will end if nothing disturbs it."""
        return self.since + self.left / self.rate

    def start(self, now: float, rate: float) -> None:
        """It starts, starts again, or goes on with other pods at another rate."""
        if self.working:
            self.left = max(self.left - self._done(now), 0.0)
            self.since = max(now, self.since)
        else:
            restart = self.arrival.restart if self.evictions else 0.0
            self.since = now + restart
            self.lost += restart
        if self.started is None:
            self.started = now
        self.rate, self.working = rate, True
        self.generation += 1

    def evict(self, now: float) -> None:
        """It stops; the work since its last checkpoint is lost."""
        done, every = self._done(now), self.arrival.checkpoint
        kept = min(math.floor(done / every + 1e-9) * every, done) if every > 0 else 0.0
        self.lost += done - kept
        self.left -= kept
        self.working = False
        self.evictions += 1

    def end(self, now: float) -> None:
        """All of its work is done."""
        self.left, self.ended, self.working = 0.0, now, False

    def record(self) -> Record:
        """Its life so far."""
        workload = self.arrival.workload
        return Record(
            key=workload.key,
            tenant=workload.tenant,
            priority=workload.priority,
            devices=self.devices,
            duration=self.arrival.duration,
            submitted=self.arrival.time,
            started=self.started,
            ended=self.ended,
            evictions=self.evictions,
            lost=self.lost,
        )

    def _done(self, now: float) -> float:
        return max(now - self.since, 0.0) * self.rate
