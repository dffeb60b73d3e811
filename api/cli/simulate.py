"""`kekkai simulate`: a trace's day through the same plan() that runs the cloud, as many what-ifs as are asked for."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from api.cli.output import Format
from crds.errors import InvalidInput, Unavailable
from crds.labels import ACCELERATOR
from crds.quantities import micro, resource_units
from scheduler import PoolState
from scheduler.simulate.trace import TraceJob, read_philly
from scheduler.simulate.whatif import QuotaRule, Scenario, Summary, run

_POOL_FIELDS = {
    "name": "pool",
    "accelerator": "H200",
    "resource": "nvidia.com/gpu",
    "devices": "8",
    "cpu": "192",
    "memory": "2Ti",
    "min": "0",
    "max": "8",
    "headroom": "0",
    "idle": "600",
    "price": "0",
}


def simulate(
    trace: Annotated[Path, typer.Option(help="A CSV like Philly's: timestamp,duration,num_gpus,gpu_time,cluster.")],
    pool: Annotated[
        list[str],
        typer.Option(
            help="A pool, as key=value,…: name, accelerator, devices (a node), max, min, headroom (nodes), "
            "idle (seconds until a node goes), price (a node and hour), cpu, memory, resource. Repeat it to compare."
        ),
    ],
    policy: Annotated[
        list[QuotaRule],
        typer.Option(help="Quotas of the tenants: 1/n with borrowing, 1/n without, or all for all. Repeatable."),
    ] = [QuotaRule.fair],  # noqa: B006 - typer reads it, nobody changes it
    start: Annotated[str, typer.Option("--from", help="First submission, ISO 8601 (UTC). Default: the first.")] = "",
    hours: Annotated[float, typer.Option(min=0.01, help="Length of the window of submissions.")] = 24.0,
    seeds: Annotated[int, typer.Option(min=1, help="Seed 0 is the trace; others draw its jobs anew.")] = 1,
    boot: Annotated[float, typer.Option(min=0, help="Seconds until a machine is ready.")] = 300.0,
    checkpoint: Annotated[float, typer.Option(min=0, help="Seconds of work between checkpoints; 0: none.")] = 1800.0,
    restart: Annotated[float, typer.Option(min=0, help="Seconds to start again after an eviction.")] = 60.0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    ray: Annotated[bool, typer.Option("--ray", help="Spread the what-ifs with Ray (the extra `ray`).")] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.table,
) -> None:
    """Replay a trace through the planner: waits, completion, use and cost of a pool that does not exist.

    Examples:

    kekkai simulate --trace philly.csv --pool name=v100,accelerator=V100,max=64 --from 2017-10-09 --hours 24

    kekkai simulate --trace philly.csv --pool max=48 --pool max=64 --policy fair --policy isolated --seeds 5 -o json
    """
    jobs = _jobs(trace, start, hours)
    scenarios = [
        Scenario(jobs, _pool(one), rule, seed, boot_seconds=boot, checkpoint=checkpoint, restart=restart)
        for one in pool
        for rule in policy
        for seed in range(seeds)
    ]
    for scenario in scenarios:
        _check_sizes(scenario)
    found = _with_progress(_by_ray(scenarios) if ray else _by_processes(scenarios, workers), len(scenarios))
    ordered = [found[index] for index in range(len(scenarios))]
    if output is Format.json:
        typer.echo(json.dumps([one.as_dict() for one in ordered], indent=2))
    else:
        # Not narrower than the figures: a line that wraps in the terminal can still be read, a cut figure cannot.
        Console(width=max(Console().width, 110)).print(_table(ordered))


def _jobs(trace: Path, start: str, hours: float) -> tuple[TraceJob, ...]:
    try:
        at = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp() if start else None
    except ValueError:
        raise InvalidInput(
            f"{start!r} is not a time", where="--from", fix="write 2017-10-09 or 2017-10-09T08:00"
        ) from None
    try:
        with trace.open(encoding="utf-8", newline="") as lines:
            jobs = tuple(read_philly(lines, start=at, hours=hours))
    except OSError as error:
        raise InvalidInput(f"{trace}: {error.strerror}", where="--trace", fix="name a file that can be read") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{trace} is not text", where="--trace", fix="give a CSV in UTF-8") from None
    if not jobs:
        raise InvalidInput("no job was submitted in this window", where="--from, --hours", fix="choose another window")
    return jobs


def _pool(text: str) -> PoolState:
    given = dict(_POOL_FIELDS)
    for part in filter(None, text.split(",")):
        name, found, value = part.partition("=")
        if not found or name not in _POOL_FIELDS:
            raise InvalidInput(
                f"{part!r} is not a field of a pool",
                where="--pool",
                fix=f"use {', '.join(_POOL_FIELDS)}, as name=value",
            )
        given[name] = value
    try:
        devices, most, least = int(given["devices"]), int(given["max"]), int(given["min"])
        headroom, idle = int(given["headroom"]), float(given["idle"])
    except ValueError as error:
        raise InvalidInput(str(error), where="--pool", fix="give whole numbers") from None
    if devices < 1 or not 0 <= least <= most or most < 1 or headroom < 0 or idle < 0:
        raise InvalidInput(
            f"{text!r} is no pool", where="--pool", fix="devices ≥ 1, max ≥ 1, 0 ≤ min ≤ max, headroom and idle ≥ 0"
        )
    return PoolState(
        name=given["name"],
        site="simulated",
        jurisdiction="",
        accelerator=given["accelerator"],
        resource=given["resource"],
        per_node=devices,
        allocatable={
            "cpu": resource_units("cpu", given["cpu"]),
            "memory": resource_units("memory", given["memory"]),
            "pods": 110,
            given["resource"]: devices,
        },
        minimum=least,
        maximum=most,
        headroom=headroom,
        scale_down_delay=idle,
        price_micro=micro(given["price"]),
        labels={ACCELERATOR: given["accelerator"]},
    )


def _check_sizes(scenario: Scenario) -> None:
    pool = scenario.pool
    share = pool.maximum * pool.per_node
    if scenario.quota is QuotaRule.isolated:
        share //= len({job.tenant for job in scenario.jobs})
    large = sum(1 for job in scenario.jobs if job.devices > share)
    if large:
        typer.echo(
            f"note: {large} of {len(scenario.jobs)} jobs ask for more than the {share} devices they may have "
            f"({pool.name}, {scenario.quota.value}) and will never start",
            err=True,
        )


Numbered = tuple[int, Summary]


def _by_processes(scenarios: Sequence[Scenario], workers: int) -> Iterator[Numbered]:
    if len(scenarios) == 1:
        yield 0, run(scenarios[0])
        return
    with ProcessPoolExecutor(max_workers=workers or None) as executor:
        waiting: dict[Future[Summary], int] = {executor.submit(run, one): at for at, one in enumerate(scenarios)}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _by_ray(scenarios: Sequence[Scenario]) -> Iterator[Numbered]:
    try:
        ray: Any = importlib.import_module("ray")  # only here: starting without it must not cost its import
    except ImportError:
        raise Unavailable(
            "Ray is not installed", where="--ray", fix="pip install 'kekkai[ray]', or leave out --ray to use processes"
        ) from None
    mine = not ray.is_initialized()
    if mine:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(run)
        waiting = {remote.remote(one): at for at, one in enumerate(scenarios)}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), ray.get(done)
    finally:
        if mine:
            ray.shutdown()


def _with_progress(results: Iterable[Numbered], total: int) -> dict[int, Summary]:
    found: dict[int, Summary] = {}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("what-ifs", total=total)
        for at, one in results:
            found[at] = one
            progress.advance(task)
    return found


def _table(rows: Sequence[Summary]) -> Table:
    columns = ("pool", "policy", "seed", "ended", "wait", "p95", "completion", "makespan", "use", "nodes", "cost")
    table = Table(*columns, box=None, padding=(0, 1))
    for one in rows:
        table.add_row(
            f"{one.pool} ≤ {one.maximum}", one.quota, str(one.seed), f"{one.ended}/{one.jobs}", _span(one.mean_wait),
            _span(one.p95_wait), _span(one.mean_completion), _span(one.makespan), f"{100 * one.use:.0f} %",
            str(one.peak_nodes), f"{one.cost:.2f}",
        )  # fmt: skip
    return table


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
