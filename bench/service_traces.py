"""Inference services in virtual time: the Azure LLM traces, a queue before replicas, and HPA as documented.

The service. A replica serves up to `slots` requests at once (continuous batching); others
wait in one queue, first come first served. A request's time in service is
    context tokens / prefill rate + generated tokens / decode rate,
its time to first token the wait plus the prefill. A replica that is asked for serves after
`startup` seconds (node, image, weights); one that is given up takes nothing new, finishes
what it has, and is paid for until then. A replica is paid for from the moment when it is
asked for.

Out of target: of the 15-second spans in which requests arrived, those in which the p95 of
their times to first token is above the target; given in seconds. The first `warm_up`
seconds are neither judged nor paid for.

The policies see what a scrape every 15 s shows: requests in flight, of these waiting,
requests that arrived in the last 30 s, and the p95 of what got its first token in the last
30 s.

HPA: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ ("Algorithm
details", "Default behavior") and kubernetes pkg/controller/podautoscaler/replica_calculator.go:
desired = ceil(current x metric / target); no change within a tolerance of 10 %; pods that
are not ready yet count as 0 when growing and as the target when shrinking, and if the
direction turns by this nothing is done; every 15 s; growth by at most 100 % or 4 pods in
15 s, whichever is more; shrinking to the highest that was wanted in the last 5 minutes.
"""

from __future__ import annotations

import csv
import heapq
import math
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

SHARED = Path(os.environ.get("KEKKAI_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SYNC = 15.0
SEEN = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    at: float
    context: int
    generated: int


@dataclass(frozen=True, slots=True)
class Service:
    """What a replica can do, and what is expected of the service."""

    slots: int = 4
    prefill: float = 7000.0  # tokens/s
    decode: float = 33.0  # tokens/s of one request
    startup: float = 90.0
    target: float = 5.0  # seconds to the first token, p95
    least: int = 1
    most: int = 200
    warm_up: float = (
        300.0  # not judged and not paid for: all policies begin alike, with replicas that they did not choose
    )


@dataclass(frozen=True, slots=True)
class Scrape:
    now: float
    replicas: int
    ready: int
    in_flight: int
    waiting: int
    busy: int
    rate: float  # requests/s
    latency: float  # NaN when nothing got its first token


class Policy(Protocol):
    def replicas(self, scrape: Scrape) -> int:
        """How many there shall be."""
        ...


@dataclass(slots=True)
class Outcome:
    replica_hours: float
    out_of_target: float
    seconds: float
    p95: float
    changes: int
    reversals: int
    counts: list[int] = field(default_factory=list)


def azure(name: str) -> list[Request]:
    """`conv` or `code`: the requests of traces/azure-llm, from 0 s on."""
    path = SHARED / "traces" / "azure-llm" / f"AzureLLMInferenceTrace_{name}.csv"
    with path.open() as lines:
        rows = [
            (
                datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(lines)
        ]
    rows.sort()
    return [Request(at - rows[0][0], context, generated) for at, context, generated in rows]


class Hpa:
    """HorizontalPodAutoscaler with one Pods metric, its default behaviour."""

    def __init__(
        self, metric: str, target: float, service: Service, window: float = 300.0, tolerance: float = 0.1
    ) -> None:
        self.metric, self.target, self.service = metric, target, service
        self.window, self.tolerance = window, tolerance
        self._wanted: deque[tuple[float, int]] = deque()
        self._grown: deque[tuple[float, int]] = deque()

    def replicas(self, scrape: Scrape) -> int:
        wanted = min(max(self._formula(scrape), self.service.least), self.service.most)
        self._wanted.append((scrape.now, wanted))
        while self._wanted[0][0] < scrape.now - self.window:
            self._wanted.popleft()
        stable = max(count for _, count in self._wanted)
        if wanted > scrape.replicas:
            return min(wanted, max(2 * scrape.replicas, scrape.replicas + 4))
        return min(scrape.replicas, stable)

    def _formula(self, scrape: Scrape) -> int:
        total = {"inFlight": scrape.in_flight, "busy": scrape.busy, "requests": scrape.rate}[self.metric]
        current, ready = scrape.replicas, scrape.ready
        if ready == 0:
            return current
        ratio = total / ready / self.target
        unready = current - ready
        if unready <= 0:
            return current if abs(ratio - 1) <= self.tolerance else math.ceil(ratio * ready - 1e-9)
        filled = total if ratio > 1 else total + unready * self.target
        again = filled / current / self.target
        if abs(again - 1) <= self.tolerance or (ratio > 1) != (again > 1):
            return current
        return math.ceil(again * current - 1e-9)


def replay(requests: Sequence[Request], service: Service, policy: Policy, first: int) -> Outcome:
    """Run the trace to the last arrival under the policy."""
    world = _World(service, first)
    end = requests[-1].at
    arrivals = iter(requests)
    coming = next(arrivals, None)
    tick = SYNC
    outcome = Outcome(0.0, 0.0, end - service.warm_up, 0.0, 0, 0)
    last_direction = 0
    before = 0.0
    while tick <= end:
        while coming is not None and coming.at <= tick:
            world.until(coming.at)
            world.arrive(coming)
            coming = next(arrivals, None)
        world.until(tick)
        if tick <= service.warm_up:
            before = world.paid(tick)
        wanted = min(max(policy.replicas(world.scrape(tick)), service.least), service.most)
        if wanted != world.asked:
            direction = 1 if wanted > world.asked else -1
            outcome.changes += 1
            outcome.reversals += direction == -last_direction
            last_direction = direction
            world.ask(wanted)
        outcome.counts.append(world.asked)
        tick += SYNC
    while coming is not None:
        world.until(coming.at)
        world.arrive(coming)
        coming = next(arrivals, None)
    world.until(end)
    outcome.replica_hours = (world.paid(end) - before) / 3600
    world.until(math.inf)
    judged = [one for one in world.first_tokens if one[0] >= service.warm_up]
    outcome.out_of_target, outcome.p95 = _judge(judged, service.target)
    return outcome


def _judge(first_tokens: Sequence[tuple[float, float]], target: float) -> tuple[float, float]:
    spans: dict[int, list[float]] = {}
    for arrived, took in first_tokens:
        spans.setdefault(int(arrived // SYNC), []).append(took)
    bad = sum(_p95(found) > target for found in spans.values())
    return bad * SYNC, _p95([took for _, took in first_tokens])


def _p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)] if ordered else math.nan


class _World:
    """Replicas with slots; events in a heap: (time, order, what, replica)."""

    def __init__(self, service: Service, first: int) -> None:
        self.service = service
        self.asked = first
        self.now = 0.0
        self.busy: dict[int, int] = {}  # ready replica, oldest first → requests in it
        self.starting: dict[int, float] = {}
        self.leaving: dict[int, int] = {}
        self.born: dict[int, float] = {}
        self.gone: list[float] = []
        self.queue: deque[Request] = deque()
        self.events: list[tuple[float, int, str, int]] = []
        self.first_tokens: list[tuple[float, float]] = []
        self._recent: deque[tuple[float, float]] = deque()  # (when the first token came, how long it took)
        self._arrived: deque[float] = deque()
        self._count = self._order = 0
        for _ in range(first):
            self.busy[self._new(0.0)] = 0

    def _new(self, now: float) -> int:
        self._count += 1
        self.born[self._count] = now
        return self._count

    def _push(self, at: float, what: str, replica: int) -> None:
        self._order += 1
        heapq.heappush(self.events, (at, self._order, what, replica))

    def until(self, now: float) -> None:
        while self.events and self.events[0][0] <= now:
            at, _, what, replica = heapq.heappop(self.events)
            self.now = at
            if what == "ready":
                if replica in self.starting:
                    del self.starting[replica]
                    self.busy[replica] = 0
            elif replica in self.busy:
                self.busy[replica] -= 1
            else:
                self.leaving[replica] -= 1
                if self.leaving[replica] == 0:
                    self._leave(replica)
            self._serve()
        if math.isfinite(now):
            self.now = now

    def arrive(self, request: Request) -> None:
        self.queue.append(request)
        self._arrived.append(request.at)
        self._serve()

    def _serve(self) -> None:
        while self.queue:
            free = [replica for replica, busy in self.busy.items() if busy < self.service.slots]
            if not free:
                return
            replica = min(free, key=lambda one: (self.busy[one], one))
            request = self.queue.popleft()
            self.busy[replica] += 1
            prefill = request.context / self.service.prefill
            took = self.now - request.at + prefill
            self.first_tokens.append((request.at, took))
            self._recent.append((self.now + prefill, took))
            self._push(self.now + prefill + request.generated / self.service.decode, "done", replica)

    def ask(self, wanted: int) -> None:
        while self.asked < wanted:
            replica = self._new(self.now)
            self.starting[replica] = self.now
            self._push(self.now + self.service.startup, "ready", replica)
            self.asked += 1
        while self.asked > wanted:
            # ReplicaSet: those that are not ready go first, then the youngest.
            replica = max(self.starting or self.busy)
            if replica in self.starting:
                del self.starting[replica]
                self._leave(replica)
            else:
                self.leaving[replica] = self.busy.pop(replica)
                if self.leaving[replica] == 0:
                    self._leave(replica)
            self.asked -= 1

    def _leave(self, replica: int) -> None:
        self.leaving.pop(replica, None)
        self.gone.append(self.now - self.born.pop(replica))

    def paid(self, now: float) -> float:
        return sum(self.gone) + sum(now - born for born in self.born.values())

    def scrape(self, now: float) -> Scrape:
        while self._arrived and self._arrived[0] <= now - SEEN:
            self._arrived.popleft()
        while self._recent and self._recent[0][0] <= now - SEEN:
            self._recent.popleft()
        busy = sum(self.busy.values()) + sum(self.leaving.values())
        latency = _p95([took for at, took in self._recent if at <= now])
        return Scrape(
            now,
            self.asked,
            len(self.busy),
            busy + len(self.queue),
            len(self.queue),
            busy,
            len(self._arrived) / SEEN,
            latency,
        )
