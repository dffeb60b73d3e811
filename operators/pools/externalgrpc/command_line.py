"""The operator's options for a Cluster Autoscaler that comes in by gRPC."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from operators.pools.externalgrpc.server import Listening, listen
from operators.pools.externalgrpc.service import CloudProvider
from operators.runtime import Cluster, Stores

log = logging.getLogger(__name__)


def add_arguments(out: argparse.ArgumentParser) -> None:
    """`--autoscaler-…`: without an address nothing listens."""
    out.add_argument("--autoscaler-address", help="host:port for Cluster Autoscaler's external gRPC protocol (mTLS)")
    out.add_argument("--autoscaler-certificate", type=Path, help="its serving certificate (PEM)")
    out.add_argument("--autoscaler-key", type=Path, help="the key of that certificate (PEM)")
    out.add_argument("--autoscaler-client-ca", type=Path, help="CA (PEM) that clients' certificates must chain to")
    out.add_argument(
        "--autoscaler-client",
        action="append",
        default=[],
        help="common name of a client that may size pools; repeatable",
    )


def check_arguments(cli: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Ends the process with a message when they do not go together."""
    needed = (given.autoscaler_certificate, given.autoscaler_key, given.autoscaler_client_ca)
    if given.autoscaler_address and not (all(needed) and given.autoscaler_client):
        cli.error(
            "--autoscaler-address needs --autoscaler-certificate, --autoscaler-key, --autoscaler-client-ca"
            " and --autoscaler-client"
        )


async def serve(given: argparse.Namespace, cluster: Cluster, stores: Stores, ready: Callable[[], bool]) -> Any | None:
    """The running server, None when none is asked for. Raises InvalidInput."""
    if not given.autoscaler_address:
        return None
    how = Listening(
        given.autoscaler_address,
        given.autoscaler_certificate,
        given.autoscaler_key,
        given.autoscaler_client_ca,
        tuple(given.autoscaler_client),
    )
    server, port = await listen(CloudProvider(cluster, stores, ready), how)
    log.info("Cluster Autoscaler may come in at port %d", port)
    return server
