"""`python -m keymgmt --config FILE`: run the key service until SIGTERM.

Exit status: 0 after a graceful end, 1 if it cannot start (one line says why).
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
from pathlib import Path

from crds.errors import KekkaiError
from keymgmt import config as configuration
from keymgmt.json_logs import configure


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m keymgmt", description="The Kekkai key service.")
    parser.add_argument("--config", type=Path, required=True, help="YAML or JSON file; see docs/keys.md")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--check", action="store_true", help="validate the configuration and exit")
    options = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    configure(options.log_level)
    try:
        config = configuration.load(options.config)
        if not options.check:
            _serve(config)
    except KekkaiError as error:
        logging.getLogger("keymgmt").error("%s", error, extra=error.problem.as_dict())
        sys.stderr.write(f"keymgmt: {error.problem.reason}: {error}\n")
        return 1
    return 0


def _serve(config: configuration.KeyServiceConfig) -> None:
    # The worker starts while the rest is being imported: both take most of a second.
    from keymgmt.lifecycle import folder_lock
    from keymgmt.wrapping.client import WorkerClient

    with folder_lock.take(config.data_dir):
        worker = WorkerClient(config.hsm, config.hsm.folder or config.data_dir)
        worker.start_soon()
        try:
            from keymgmt.broker.server import run

            run(config, worker)
        finally:
            worker.close()


if __name__ == "__main__":
    sys.exit(main())
