"""`python -m operators`: all operators in one process, over one watch of the cluster."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from crds.errors import KekkaiError
from keymgmt.json_logs import configure
from operators import dataflow, keys, pools, tenants, workloads
from operators.dataflow.external_metrics import ExternalMetrics, front_proxy
from operators.keys.service import KeyServiceClient
from operators.planning.decisions import Decisions
from operators.planning.family import Family
from operators.planning.feed import Feed
from operators.planning.planner import Planner
from operators.planning.queued_kind import QueuedKind
from operators.pools import externalgrpc
from operators.runtime import Cluster, Controller, Runtime, Stores
from operators.workloads.integrations import ALWAYS
from operators.workloads.integrations.discovery import served_at_start

log = logging.getLogger("operators")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m operators", description=__doc__)
    out.add_argument("--kubeconfig", type=Path, help="how to reach the API server; default: the pod's service account")
    out.add_argument("--keys-url", help="base URL of the key service; without it ProtectedKeys are not served")
    out.add_argument("--keys-ca", type=Path, help="CA certificate (PEM) that the key service's TLS must chain to")
    out.add_argument("--keys-token-file", type=Path, help="file with the bearer token of role operator")
    out.add_argument("--metrics-port", type=int, default=0, help="serve Prometheus metrics here; 0 turns them off")
    out.add_argument("--metrics-address", default="127.0.0.1", help="address that metrics listen on")
    out.add_argument("--resync-seconds", type=float, default=300.0, help="seconds between two full lists of all kinds")
    out.add_argument(
        "--usage-half-life-seconds",
        type=float,
        default=4 * 3600.0,
        help="time after which a tenant's past use counts half when tenants take turns; 0: only what it holds counts",
    )
    out.add_argument("--prometheus-url", help="base URL of the Prometheus that services' signals are read from")
    out.add_argument("--prometheus-ca", type=Path, help="CA certificate (PEM) that its TLS must chain to")
    out.add_argument("--prometheus-token-file", type=Path, help="file with a bearer token for it")
    out.add_argument("--external-metrics-port", type=int, default=0, help="serve external.metrics.k8s.io here; 0: not")
    out.add_argument("--external-metrics-address", default="0.0.0.0", help="address that it listens on")  # noqa: S104
    out.add_argument("--external-metrics-certificate", type=Path, help="its serving certificate (PEM)")
    out.add_argument("--external-metrics-key", type=Path, help="the key of that certificate (PEM)")
    externalgrpc.add_arguments(out)
    out.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return out


def build(
    cluster: Cluster,
    stores: Stores,
    service: KeyServiceClient | None,
    half_life: float = 0.0,
    kinds: Sequence[QueuedKind] = (),
    prometheus: dataflow.Prometheus | None = None,
    readings: dataflow.Readings | None = None,
) -> list[Controller]:
    """All controllers, over one feed of the fleet. `kinds`: what is queued beside Jobs and plain pods."""
    decisions = Decisions()
    feed = Feed(stores, decisions, half_life, Family(stores, [*ALWAYS, *kinds]))
    out: list[Controller] = [
        Planner(feed, decisions),
        *pools.controllers(cluster, stores, feed),
        *workloads.controllers(cluster, stores, feed, decisions),
        *tenants.controllers(cluster, stores),
        *dataflow.controllers(cluster, stores, prometheus, readings),
    ]
    if service is not None:
        out += keys.controllers(cluster, stores, service)
    return out


class _Writes(Collector):
    """kekkai_api_writes_total: requests of this process that change something."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def collect(self) -> list[CounterMetricFamily]:
        metric = CounterMetricFamily("kekkai_api_writes", "Write requests to the API server.")
        metric.add_metric([], self._cluster.writes)
        return [metric]


async def serve(given: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    service = None
    if given.keys_url:
        service = KeyServiceClient(given.keys_url, given.keys_ca, given.keys_token_file)
    prometheus = None
    if given.prometheus_url:
        prometheus = dataflow.Prometheus(given.prometheus_url, given.prometheus_ca, given.prometheus_token_file)
    readings, metrics = dataflow.Readings(), None
    autoscaler = None
    try:
        async with await Cluster.connect(given.kubeconfig) as cluster:
            if given.metrics_port:
                REGISTRY.register(_Writes(cluster))
                start_http_server(given.metrics_port, given.metrics_address)
            stores = Stores()
            kinds = await served_at_start(cluster, stop)
            controllers = build(cluster, stores, service, given.usage_half_life_seconds, kinds, prometheus, readings)
            runtime = Runtime(cluster, stores, controllers, given.kubeconfig, given.resync_seconds)
            if given.external_metrics_port:
                metrics = ExternalMetrics(cluster, readings, await front_proxy(cluster))
                where = given.external_metrics_address, given.external_metrics_port
                await metrics.start(*where, given.external_metrics_certificate, given.external_metrics_key)
            autoscaler = await externalgrpc.serve(given, cluster, stores, runtime.ready.is_set)
            log.info("operators start")
            await runtime.run(stop)
            log.info("operators end")
    finally:
        if autoscaler is not None:
            await autoscaler.stop(1.0)
        if metrics is not None:
            await metrics.stop()
        if prometheus is not None:
            await prometheus.close()
        if service is not None:
            await service.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after an orderly end, 1 after a fault, 2 for a wrong command line."""
    cli = parser()
    given = cli.parse_args(arguments)
    if given.keys_url and not given.keys_token_file:
        cli.error("--keys-url needs --keys-token-file")
    if given.external_metrics_port and not (given.external_metrics_certificate and given.external_metrics_key):
        cli.error("--external-metrics-port needs --external-metrics-certificate and --external-metrics-key")
    externalgrpc.check_arguments(cli, given)
    configure(given.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each query would drown the rest
    try:
        asyncio.run(serve(given))
    except KekkaiError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
