"""A real Prometheus server on a loopback port, scraping the given addresses. Its time series end with it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx
import yaml

from crds.errors import Unavailable
from local.controlplane.ports import free_ports


class Prometheus:
    """`/usr/bin/prometheus` (Debian package) or the one on the path. May be killed and started again."""

    def __init__(self, folder: Path, scraped: Sequence[str], interval: float = 1.0) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            raise Unavailable(
                "there is no prometheus", fix="install the package prometheus", reason="PrometheusMissing"
            )
        self._folder = folder
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "prometheus.yml"
        every = f"{round(interval * 1000)}ms"
        job = {"job_name": "services", "honor_labels": True, "static_configs": [{"targets": list(scraped)}]}
        document = {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [job]}
        config.write_text(yaml.safe_dump(document))
        self._command = [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 30.0) -> None:
        """Returns when it is ready. Raises Unavailable with the end of its log when it is not in time."""
        path = self._folder / "prometheus.log"
        with path.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/-/ready", timeout=1.0, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        self.stop()
        raise Unavailable("prometheus did not become ready", where=path.read_text()[-500:], reason="PrometheusNotReady")

    def stop(self) -> None:
        """SIGKILL: nobody hears that it goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
