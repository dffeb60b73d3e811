"""The command lines of etcd, the API server, the controller manager, the scheduler and kwok."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from local.controlplane.pki import Authority, Pair
from local.controlplane.ports import HOST

STAGES = Path(__file__).resolve().parent / "stages"
ROLES = Path(__file__).resolve().parent / "rbac.yaml"
KWOK_USER = "system:kwok"
_SERVICE_CIDR = "10.96.0.0/16"
_POD_CIDR = "10.128.0.1/9"

GO_MEMORY: Mapping[str, str] = {"GOGC": os.environ.get("GOGC", "300"), "GOMEMLIMIT": "3GiB"}
"""For etcd and the API server: memory for CPU. A fifth to a third of an API server's CPU is Go's garbage collection at
its default of 100; the limit brings that back when the heap is large."""

_KWOK_OPTIONS = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    "metadata": {"name": "kwok"},
    "options": {"podPlayStageParallelism": 16, "nodePlayStageParallelism": 8},
}

# Who did what to which object, without bodies: bodies of Secrets must not reach a file.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:kube-scheduler", "system:kwok"], "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None", "verbs": ["watch"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of one control plane are."""

    folder: Path
    etcd_port: int
    peer_port: int
    api_port: int

    @property
    def server(self) -> str:
        return f"https://{HOST}:{self.api_port}"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"


def etcd(binary: Path, layout: Layout, authority: Authority) -> list[str]:
    """No fsync: the data is for tests and demonstrations, and this makes them fast."""
    ca, pair = authority.files.certificate, authority.server("etcd-server", [HOST, "localhost"], peer=True)
    client, peer = f"https://{HOST}:{layout.etcd_port}", f"https://{HOST}:{layout.peer_port}"
    return [
        str(binary),
        "--name=local",
        f"--data-dir={layout.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        f"--cert-file={pair.certificate}",
        f"--key-file={pair.key}",
        f"--trusted-ca-file={ca}",
        "--client-cert-auth",
        f"--peer-cert-file={pair.certificate}",
        f"--peer-key-file={pair.key}",
        f"--peer-trusted-ca-file={ca}",
        "--peer-client-cert-auth",
        "--unsafe-no-fsync",
        "--auto-compaction-retention=5m",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]


def api_server(
    binary: Path, layout: Layout, cluster: Authority, front: Authority, store: Authority, accounts: Pair
) -> list[str]:
    """RBAC, client certificates, audit, aggregation. Anonymous requests are refused."""
    tls = cluster.server("apiserver", [HOST, "localhost", "kubernetes.default.svc", "10.96.0.1"])
    etcd_client = store.client("etcd-client", "kube-apiserver")
    proxy = front.client("front-proxy-client", "front-proxy-client")
    policy = layout.folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
    return [
        str(binary),
        f"--etcd-servers=https://{HOST}:{layout.etcd_port}",
        f"--etcd-cafile={store.files.certificate}",
        f"--etcd-certfile={etcd_client.certificate}",
        f"--etcd-keyfile={etcd_client.key}",
        f"--bind-address={HOST}",
        f"--secure-port={layout.api_port}",
        f"--tls-cert-file={tls.certificate}",
        f"--tls-private-key-file={tls.key}",
        f"--client-ca-file={cluster.files.certificate}",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={accounts.certificate}",
        f"--service-account-signing-key-file={accounts.key}",
        f"--service-cluster-ip-range={_SERVICE_CIDR}",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--profiling=false",
        f"--requestheader-client-ca-file={front.files.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={proxy.certificate}",
        f"--proxy-client-key-file={proxy.key}",
        "--enable-aggregator-routing",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=500",
        "--audit-log-mode=batch",
        "--max-requests-inflight=1600",
        "--max-mutating-requests-inflight=800",
        "--default-watch-cache-size=2000",
    ]


def controller_manager(binary: Path, kubeconfig: Path, cluster_ca: Path, accounts: Pair) -> list[str]:
    """Concurrency and client rates raised: the defaults are for clusters that spread load over hours."""
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--root-ca-file={cluster_ca}",
        f"--service-account-private-key-file={accounts.key}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        "--concurrent-job-syncs=20",
        "--concurrent-gc-syncs=20",
        "--concurrent-namespace-syncs=20",
        "--concurrent-resource-quota-syncs=20",
        "--concurrent-serviceaccount-token-syncs=10",
        # Three missed heartbeats of stages/node-heartbeat.yaml.
        "--node-monitor-grace-period=540s",
        "--terminated-pod-gc-threshold=20000",
    ]


def scheduler(binary: Path, folder: Path, kubeconfig: Path) -> list[str]:
    """The stock kube-scheduler."""
    config = folder / "scheduler.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 1000, "burst": 2000},
                "leaderElection": {"leaderElect": False},
                "podInitialBackoffSeconds": 1,
                "podMaxBackoffSeconds": 2,
            }
        )
    )
    return [str(binary), f"--config={config}", "--secure-port=0"]


def kwok(binary: Path, folder: Path, kubeconfig: Path) -> list[str]:
    """Plays the kubelets of nodes annotated kwok.x-k8s.io/node=fake.

    Without node leases: kwok takes a new identity at each start and would leave its nodes and
    pods alone until the leases of the killed one expire. A heartbeat in the node's status,
    every few minutes, costs less and is taken over at once.
    """
    documents = [yaml.safe_dump(_KWOK_OPTIONS), *(path.read_text() for path in sorted(STAGES.glob("*.yaml")))]
    config = folder / "kwok.yaml"
    config.write_text("\n---\n".join(documents))
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--config={config}",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        f"--cidr={_POD_CIDR}",
        "--node-lease-duration-seconds=0",
        "--v=WARN",
    ]


USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("kekkai-admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "kwok": (KWOK_USER, ()),
}
"""Client identities of the components: user and groups."""
