"""What the local control plane runs, and in which versions. The Go modules in local/tools pin the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / "tools"
KUBERNETES = "1.37.2"
ETCD = "3.7.3"
KWOK = "0.8.0"
GO = "1.26"


@dataclass(frozen=True, slots=True)
class Binary:
    """One program: how to ask its version, where it is published, how Go builds it."""

    name: str
    version: str
    module: str  # folder under local/tools
    package: str  # what `go build` gets
    version_args: tuple[str, ...]
    ldflags: str = ""
    download: str = ""  # official prebuilt file; used only with a checksum in CHECKSUMS

    @property
    def series(self) -> str:
        """Major and minor: a binary found on the machine suits when these agree."""
        return ".".join(self.version.split(".")[:2])


_STAMP = " ".join(
    f"-X k8s.io/component-base/version.{key}={value}"
    for key, value in (("gitVersion", f"v{KUBERNETES}"), ("gitMajor", "1"), ("gitMinor", "37"))
)


def _kube(name: str, *version_args: str) -> Binary:
    return Binary(
        name,
        KUBERNETES,
        "kubernetes",
        f"k8s.io/kubernetes/cmd/{name}",
        version_args or ("--version",),
        _STAMP,
        f"https://dl.k8s.io/release/v{KUBERNETES}/bin/{{os}}/{{arch}}/{name}",
    )


# In this order the Go build cache is shared best: the API server compiles what the others reuse.
BINARIES: tuple[Binary, ...] = (
    Binary("etcd", ETCD, "etcd", ".", ("--version",)),
    _kube("kube-apiserver"),
    _kube("kube-controller-manager"),
    _kube("kube-scheduler"),
    _kube("kubectl", "version", "--client", "-o", "json"),
    Binary(
        "kwok",
        KWOK,
        "kwok",
        "sigs.k8s.io/kwok/cmd/kwok",
        ("--version",),
        f"-X sigs.k8s.io/kwok/pkg/consts.Version=v{KWOK}",
        f"https://github.com/kubernetes-sigs/kwok/releases/download/v{KWOK}/kwok-{{os}}-{{arch}}",
    ),
)

CHECKSUMS: dict[str, str] = {}
"""SHA-256 of a prebuilt download, by its URL. A file without a checksum pinned here is never
downloaded: the Go modules, whose sums are pinned in go.sum, are built instead. Add a line
after reading the checksum that the project publishes beside the file and comparing it on
two networks."""
