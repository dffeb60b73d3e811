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

import yaml

from crds.errors import KekkaiError
from local.controlplane import components as parts
from local.controlplane.binaries import resolve
from local.controlplane.pki import Authority, kubeconfig, service_account_key
from local.controlplane.ports import HOST, free_ports
from local.controlplane.progress import Progress
from local.controlplane.supervision import Supervisor, SupervisorError

ALL = ("controller-manager", "scheduler", "kwok")
_TRIES = 3  # a port that was free may be taken before it is used


class ControlPlaneError(KekkaiError):
    """The control plane could not be started or reached."""

    reason = "ControlPlaneFailed"


def _port_was_taken(error: BaseException) -> bool:
    return isinstance(error, SupervisorError) and "address already in use" in str(error)


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
        api_server_flags: Sequence[str] = (),
    ) -> ControlPlane:
        """Start everything and wait until the API server answers.

        `api_server_flags` come after its own and override them, `--profiling=true` say.
        Without `data_dir` a temporary folder is used and removed at the end. All processes end
        with this one, however it ends, unless `detached` (or `detach`, later).
        """
        binaries = resolve(progress=progress)
        folder = Path(data_dir or tempfile.mkdtemp(prefix="kekkai-"))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for attempt in range(_TRIES):
            etcd, peer, api = free_ports(3)
            plane = cls(parts.Layout(folder, etcd, peer, api), Supervisor.start(folder, data_dir is None), binaries)
            plane._temporary = data_dir is None
            try:
                plane._bring_up(components, api_server_flags)
            except BaseException as error:
                last = attempt + 1 == _TRIES or not _port_was_taken(error)
                plane.supervisor.shutdown()
                if last:
                    plane.stop()
                    raise
                continue
            if detached:
                plane.detach()
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

    def _bring_up(self, components: Sequence[str], api_server_flags: Sequence[str]) -> None:
        folder, spawn = self.data_dir, self.supervisor.spawn
        front, store = Authority(folder / "pki", "front-proxy-ca"), Authority(folder / "pki", "etcd-ca")
        accounts = service_account_key(folder / "pki")
        configs = {
            name: kubeconfig(
                folder / f"{name}.kubeconfig", self.server, self.ca_file, self.pki.client(name, user, groups)
            )
            for name, (user, groups) in parts.USERS.items()
        }
        spawn("etcd", parts.etcd(self.binaries["etcd"], self.layout, store), env=parts.GO_MEMORY)
        api = parts.api_server(self.binaries["kube-apiserver"], self.layout, self.pki, front, store, accounts)
        spawn("kube-apiserver", [*api, *api_server_flags], env=parts.GO_MEMORY, ready=self.ready)
        if "kwok" in components:
            self._create_roles()
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

    def _create_roles(self) -> None:
        for role in yaml.safe_load_all(parts.ROLES.read_text()):
            path = f"/apis/rbac.authorization.k8s.io/v1/{role['kind'].lower()}s"
            status, reply = self._request("POST", path, json.dumps(role))
            if status not in {201, 409}:  # 409: made when this data folder was used before
                raise ControlPlaneError(f"creating {role['metadata']['name']}: {reply[:500]}", where=path)

    def _request(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """One request as administrator: status and body. Raises OSError or HTTPException."""
        admin = self.data_dir / "pki" / "admin"
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(admin.with_suffix(".crt"), admin.with_suffix(".key"))
        connection = http.client.HTTPSConnection(HOST, self.layout.api_port, timeout=5, context=context)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read(1 << 20).decode(errors="replace")
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self._request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a fresh client certificate: CN is the user, O are the groups."""
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", user)
        pair = self.pki.client(f"user-{safe}", user, groups)
        return kubeconfig(self.data_dir / f"user-{safe}.kubeconfig", self.server, self.ca_file, pair)

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

    def detach(self) -> None:
        """From now on it outlives this process. Stopped by `stop`, from any process, after `attach`."""
        self.supervisor.detach()

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
