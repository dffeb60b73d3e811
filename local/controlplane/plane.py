"""A running control plane: start it, get identities for it, run kubectl against it, stop it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from crds.errors import KekkaiError
from local.controlplane import components as parts
from local.controlplane.binaries import resolve
from local.controlplane.pki import Authority, Pair, kubeconfig, service_account_key
from local.controlplane.ports import HOST, free_ports
from local.controlplane.progress import Progress
from local.controlplane.supervision import Supervisor, SupervisorError

ALL = ("controller-manager", "scheduler", "kwok")
_TRIES = 3  # a port that was free may be taken before it is used


class ControlPlaneError(KekkaiError):
    """The control plane could not be started or reached."""

    reason = "ControlPlaneFailed"


class ControlPlane:
    """etcd and an API server, with the controllers that were asked for. A context manager."""

    def __init__(self, layout: parts.Layout, supervisor: Supervisor, binaries: dict[str, Path]) -> None:
        self.layout = layout
        self.supervisor = supervisor
        self.binaries = binaries
        self.data_dir = layout.folder
        self.server = layout.server
        self.audit_log = layout.audit_log
        self.pki = Authority(layout.folder / "pki", "ca")
        self.ca_file = self.pki.files.certificate
        self.admin_kubeconfig = layout.folder / "admin.kubeconfig"
        self._temporary = False

    @classmethod
    def start(
        cls,
        data_dir: Path | None = None,
        components: Sequence[str] = ALL,
        detached: bool = False,
        progress: Progress | None = None,
    ) -> ControlPlane:
        """Start everything and wait until the API server answers.

        Without `data_dir` a temporary folder is used and removed at the end. Unless
        `detached`, all processes end with this one, however it ends.
        """
        binaries = resolve(progress=progress)
        folder = Path(data_dir or tempfile.mkdtemp(prefix="kekkai-"))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for attempt in range(_TRIES):
            etcd, peer, api = free_ports(3)
            plane = cls(parts.Layout(folder, etcd, peer, api), Supervisor.start(folder, detached), binaries)
            plane._temporary = data_dir is None
            try:
                plane._bring_up(components)
            except BaseException as error:
                plane.supervisor.shutdown()
                busy = isinstance(error, SupervisorError) and "address already in use" in str(error)
                if busy and attempt + 1 < _TRIES:
                    shutil.rmtree(folder / "etcd", ignore_errors=True)
                    continue
                raise
            return plane
        raise ControlPlaneError("no free ports were found", fix="stop what listens on many loopback ports")

    @classmethod
    def attach(cls, data_dir: Path) -> ControlPlane:
        """The control plane that runs from this folder. Raises ControlPlaneError when none does."""
        state = data_dir / "state.json"
        supervisor = Supervisor.attach(data_dir)
        if not state.exists() or not supervisor.alive():
            raise ControlPlaneError(
                "no control plane runs from this folder", where=str(data_dir), fix="run `kekkai up`"
            )
        saved = json.loads(state.read_text())
        layout = parts.Layout(data_dir, saved["etcd"], saved["peer"], saved["api"])
        return cls(layout, supervisor, {name: Path(path) for name, path in saved["binaries"].items()})

    def _bring_up(self, components: Sequence[str]) -> None:
        folder, spawn = self.data_dir, self.supervisor.spawn
        front = Authority(folder / "pki", "front-proxy-ca")
        tls = self.pki.server("apiserver", [HOST, "localhost", "kubernetes.default.svc", "10.96.0.1"])
        accounts = service_account_key(folder / "pki")
        proxy = front.client("front-proxy-client", "front-proxy-client")
        configs = {
            name: kubeconfig(
                folder / f"{name}.kubeconfig", self.server, self.ca_file, self.pki.client(name, user, groups)
            )
            for name, (user, groups) in parts.USERS.items()
        }
        spawn("etcd", parts.etcd(self.binaries["etcd"], self.layout, self.ca_file, tls))
        api = parts.api_server(self.binaries["kube-apiserver"], self.layout, self.pki, front, tls, accounts, proxy)
        spawn("kube-apiserver", api, ready=self.ready)
        commands = {
            "controller-manager": lambda: parts.controller_manager(
                self.binaries["kube-controller-manager"], configs["controller-manager"], self.ca_file, accounts
            ),
            "scheduler": lambda: parts.scheduler(self.binaries["kube-scheduler"], folder, configs["scheduler"]),
            "kwok": lambda: parts.kwok(self.binaries["kwok"], folder, configs["kwok"]),
        }
        for name in components:
            spawn(name if name == "kwok" else f"kube-{name}", commands[name]())
        state = {"etcd": self.layout.etcd_port, "peer": self.layout.peer_port, "api": self.layout.api_port}
        paths = {name: str(path) for name, path in self.binaries.items()}
        (folder / "state.json").write_text(json.dumps(state | {"binaries": paths, "server": self.server}))

    def _kubeconfig(self, name: str, pair: Pair) -> Path:
        return kubeconfig(self.data_dir / f"{name}.kubeconfig", self.server, self.ca_file, pair)

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        pair = Pair(self.data_dir / "pki" / "admin.crt", self.data_dir / "pki" / "admin.key")
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(pair.certificate, pair.key)
        connection = http.client.HTTPSConnection(HOST, urlsplit(self.server).port, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a fresh client certificate: CN is the user, O are the groups."""
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", user)
        pair = self.pki.client(f"user-{safe}", user, groups)
        return self._kubeconfig(f"user-{safe}", pair)

    def kubectl(
        self, *args: str, user: Path | None = None, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as administrator unless `user` (a kubeconfig) is given."""
        command = [str(self.binaries["kubectl"]), f"--kubeconfig={user or self.admin_kubeconfig}"]
        command += [f"--cache-dir={self.data_dir / 'kubectl-cache'}", *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            raise ControlPlaneError(f"kubectl {' '.join(args[:4])}: {done.stderr.strip()}")
        return done

    def stop(self) -> None:
        """End all processes; a temporary folder is removed."""
        self.supervisor.shutdown()
        with contextlib.suppress(OSError):
            (self.data_dir / "state.json").unlink()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()
