"""Jobs of a cluster trace as arrivals. The format is the Philly trace's (Microsoft, ATC 2019) as one CSV:
`timestamp,duration,num_gpus,gpu_time,cluster`, where `cluster` is the virtual cluster that a job was charged to.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from crds.errors import InvalidInput
from scheduler.fleet import PodSet, PoolState, WorkloadState
from scheduler.simulate.outcome import Arrival

_COLUMNS = ("timestamp", "duration", "num_gpus", "cluster")


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One row. `at`: seconds since the epoch (UTC); `duration`: seconds; `row`: its line in the file, header 1."""

    row: int
    at: float
    duration: float
    devices: int
    tenant: str


def read_philly(lines: Iterable[str], *, start: float | None = None, hours: float | None = None) -> list[TraceJob]:
    """The jobs in the order of submission, those from `start` on for `hours`; all when these are None.

    Raises InvalidInput with the line for a file that is not such a trace.
    """
    reader = csv.DictReader(lines)
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InvalidInput(
            f"the trace has no column {', '.join(missing)}",
            where="line 1",
            fix=f"give a CSV with the columns {', '.join(_COLUMNS)}",
        )
    jobs = [_job(number, row) for number, row in enumerate(reader, 2)]
    jobs.sort(key=lambda job: (job.at, job.row))
    first = start if start is not None else (jobs[0].at if jobs else 0.0)
    end = first + hours * 3600 if hours is not None else float("inf")
    return [job for job in jobs if first <= job.at < end]


def _job(number: int, row: dict[str, str]) -> TraceJob:
    try:
        at = datetime.fromisoformat(row["timestamp"])
        job = TraceJob(
            number,
            (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(),
            float(row["duration"]),
            int(row["num_gpus"]),
            row["cluster"] or "none",
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"a row cannot be read: {error}", where=f"line {number}", fix="mend or drop the row"
        ) from None
    if job.duration <= 0 or job.devices < 0:
        raise InvalidInput(
            "duration must be above 0 and num_gpus not below 0", where=f"line {number}", fix="mend or drop the row"
        )
    return job


def arrivals_of(
    jobs: Sequence[TraceJob], pool: PoolState, *, checkpoint: float = 0.0, restart: float = 0.0
) -> list[Arrival]:
    """Each job as a gang on nodes of the pool: one pod if a node can take it, else the fewest equal pods.

    `checkpoint` and `restart`: see `Arrival`. Cores and memory are in proportion to the devices.
    """
    return [Arrival(job.at, _workload(job, pool), job.duration, checkpoint=checkpoint, restart=restart) for job in jobs]


def _workload(job: TraceJob, pool: PoolState) -> WorkloadState:
    each = max(size for size in range(1, pool.per_node + 1) if job.devices % size == 0) if job.devices else 0
    requests = {name: pool.allocatable.get(name, 0) * each // (2 * pool.per_node) for name in ("cpu", "memory")}
    if each:
        requests[pool.resource] = each
    key = f"{job.tenant}/job-{job.row}"
    pod_set = PodSet("main", job.devices // each if each else 1, requests)
    return WorkloadState(key=key, uid=key, tenant=job.tenant, created_at=job.at, pod_sets=(pod_set,))
