"""`kekkai plan` reading an API server: what it lists, and what it says when it may not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.cli import cluster_state
from api.cli.app import app
from crds.errors import Forbidden, KekkaiError, Unavailable
from tests.unit.cli.saved_state import job, state

KINDS = {
    "/api/v1/nodes": "Node",
    "/api/v1/namespaces": "Namespace",
    "/api/v1/pods": "Pod",
    "/api/v1/limitranges": "LimitRange",
    "/apis/batch/v1/jobs": "Job",
    "/apis/node.k8s.io/v1/runtimeclasses": "RuntimeClass",
    "/apis/kekkai.dev/v1alpha1/sites": "Site",
    "/apis/kekkai.dev/v1alpha1/acceleratorpools": "AcceleratorPool",
    "/apis/kekkai.dev/v1alpha1/machines": "Machine",
    "/apis/kekkai.dev/v1alpha1/tenants": "Tenant",
    "/apis/kekkai.dev/v1alpha1/workloads": "Workload",
}


class Api(BaseHTTPRequestHandler):
    """Lists without the kind of each item, as a real one does; only GET."""

    forbidden: str = ""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        kind = KINDS.get(path)
        code = 404 if kind is None else 403 if kind == self.forbidden else 200
        items = [{k: v for k, v in one.items() if k != "kind"} for one in state()["items"] if one["kind"] == kind]
        body = json.dumps({"kind": f"{kind}List", "items": items} if code == 200 else {"kind": "Status"}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config(server.server_address[1])))
    yield path
    server.shutdown()
    server.server_close()


def config(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
    }


def test_it_reads_every_kind_and_plans(kubeconfig: Path) -> None:
    words = ["plan", "-f", "-", "--kubeconfig", str(kubeconfig), "-o", "json"]
    result = CliRunner().invoke(app, words, input=yaml.safe_dump(job()), catch_exceptions=False)
    assert json.loads(result.output)["verdict"] == "StartsNow"


def test_who_may_not_list_is_told_what_to_do(kubeconfig: Path, monkeypatch) -> None:
    monkeypatch.setattr(Api, "forbidden", "Workload")
    with pytest.raises(Forbidden, match="list every Workload") as caught:
        cluster_state.live(kubeconfig)
    assert "--offline" in caught.value.problem.fix


def test_no_server_and_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(KekkaiError):
        cluster_state.live(tmp_path / "none")
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config(1)))
    with pytest.raises(Unavailable):
        cluster_state.live(path)
