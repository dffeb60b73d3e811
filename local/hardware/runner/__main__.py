"""`python -m local.hardware.runner`: run until told to stop; one runner per data folder."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import signal
import sys
from pathlib import Path

from local.hardware.runner.guest import KeyServiceAddress
from local.hardware.runner.kube import KubeApi
from local.hardware.runner.runner import Runner
from local.hardware.snp.platform import SnpPlatform


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.hardware.runner", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--kbs-url", required=True, help="key service, as guests reach it")
    parser.add_argument("--kbs-ca", type=Path, required=True, help="CA of the key service, PEM")
    parser.add_argument("--data-dir", type=Path, required=True, help="keys of the emulated hardware, guests' folders")
    parser.add_argument("--max-guests", type=int, default=8, help="how many guests run at once")
    parser.add_argument("--guest-deadline", type=float, default=120.0, help="how long a guest tries the key service")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format='{"time":"%(asctime)s","level":"%(levelname)s","logger":"%(name)s","message":"%(message)s"}',
    )
    arguments.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (arguments.data_dir / "runner.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"another runner works in {arguments.data_dir}\n")
            return 1
        asyncio.run(_run(arguments))
    return 0


async def _run(arguments: argparse.Namespace) -> None:
    api = await KubeApi.connect(arguments.kubeconfig)
    keys = KeyServiceAddress(arguments.kbs_url, arguments.kbs_ca, arguments.guest_deadline)
    platform = await asyncio.to_thread(SnpPlatform, arguments.data_dir)
    runner = Runner(api, platform, keys, max_guests=arguments.max_guests)
    task = asyncio.create_task(runner.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("stopped; no guest runs any more")
    finally:
        await api.close()


if __name__ == "__main__":
    sys.exit(main())
