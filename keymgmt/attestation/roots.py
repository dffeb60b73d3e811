"""What the verifier trusts and what it has at hand: pinned roots and cached collateral.

Collateral (intermediates, VCEKs of known hosts, revocation lists) is data, not trust: a
wrong file can only cause a refusal. Nothing here reaches for the network.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography import x509

from crds.errors import InvalidInput
from keymgmt.attestation.certificates import (
    Authority,
    SigningCertificate,
    read_certificate,
    split_certificates,
)
from keymgmt.attestation.chain import Chain, build_chain
from keymgmt.attestation.refusal import AttestationRefused, refuse
from keymgmt.attestation.report import SnpReport, Tcb

# SHA-256 of the SubjectPublicKeyInfo of AMD's root keys (ARK), as published by AMD's KDS
# under https://kdsintf.amd.com/vcek/v1/{Milan,Genoa,Turin}/cert_chain.
AMD_ROOTS: Final[dict[str, str]] = {
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin",
}
CACHED_CHAINS: Final = 4096
MAX_COLLATERAL_FILES: Final = 16384
MAX_COLLATERAL_BYTES: Final = 1 << 20
_SUFFIXES: Final = {".der", ".pem", ".crt", ".cer", ".crl"}


@dataclass(frozen=True, slots=True)
class TrustRoots:
    """Anchors (SPKI SHA-256 → label) with the collateral to reach them. Immutable; share it freely.

    Verified chains are remembered per instance, so that a host's certificates are parsed and
    checked once; validity and revocation are looked at on each use.
    """

    anchors: Mapping[str, str] = field(default_factory=dict)
    authorities: tuple[Authority, ...] = ()
    leaves: tuple[SigningCertificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    _cache: _ChainCache = field(default_factory=lambda: _ChainCache(), compare=False, repr=False)

    @classmethod
    def builtin_amd(cls, *collateral: Path) -> TrustRoots:
        """Trust AMD's pinned roots. Chain certificates come with the evidence or from `collateral`."""
        roots = cls(anchors=dict.fromkeys(AMD_ROOTS, "amd"))
        for folder in collateral:
            roots = roots.with_collateral(folder)
        return roots

    @classmethod
    def from_directory(cls, folder: Path, name: str = "") -> TrustRoots:
        """Trust every self-signed certificate in `folder`, labelled `local:<name or folder name>`.

        The other files there serve as collateral. Raises InvalidInput if it holds no root.
        """
        found = cls().with_collateral(folder)
        label = f"local:{name or folder.resolve().name}"
        anchors = {one.spki_sha256: label for one in found.authorities if one.self_issued}
        if not anchors:
            raise InvalidInput("no root certificate in the trust root folder", where=str(folder))
        return replace(found, anchors=anchors, _cache=_ChainCache())

    def with_collateral(self, folder: Path) -> TrustRoots:
        """A copy that also has the certificates and revocation lists under `folder` at hand."""
        authorities, leaves, crls = list(self.authorities), list(self.leaves), list(self.crls)
        for path, data in _files(folder):
            if data.startswith(b"-----BEGIN X509 CRL") or path.suffix == ".crl":
                crls.append(_read_crl(path, data))
                continue
            try:
                for der in split_certificates([data]):
                    one = read_certificate(der)
                    authorities.append(one) if isinstance(one, Authority) else leaves.append(one)
            except AttestationRefused as error:
                raise InvalidInput(error.problem.what, where=str(path), fix="remove or replace the file") from None
        return replace(
            self, authorities=tuple(authorities), leaves=tuple(leaves), crls=tuple(crls), _cache=_ChainCache()
        )

    def __or__(self, other: TrustRoots) -> TrustRoots:
        """Trust what either trusts, each root under its own label."""
        return TrustRoots(
            anchors={**self.anchors, **other.anchors},
            authorities=self.authorities + other.authorities,
            leaves=self.leaves + other.leaves,
            crls=self.crls + other.crls,
        )

    def chain_for(self, report: SnpReport, certificates: Sequence[bytes]) -> Chain:
        """The verified chain of the key that claims to have signed `report`.

        `certificates` (DER or PEM, any order) come with the evidence; without a leaf among
        them one is looked up in the collateral by chip and TCB.
        """
        key = (report.signing_key, tuple(certificates))
        chain = self._cache.get(key)
        if chain is None:
            parsed = [read_certificate(der) for der in split_certificates(tuple(certificates))]
            supplied = [one for one in parsed if isinstance(one, Authority)]
            offered = [one for one in parsed if isinstance(one, SigningCertificate)]
            leaf = self._leaf_for(report, offered)
            chain = build_chain(leaf, supplied, self.authorities, self.anchors)
            if offered:  # a looked-up leaf depends on the report, not only on the key
                self._cache.put(key, chain)
        return chain

    def _leaf_for(self, report: SnpReport, offered: list[SigningCertificate]) -> SigningCertificate:
        kind = {0: "vcek", 1: "vlek"}.get(report.signing_key)
        if offered:
            fitting = [one for one in offered if one.signer == kind]
            if not fitting:
                raise refuse("SigningKeyMismatch", f"the report names a {kind or 'reserved'} signing key")
            if len(fitting) > 1:
                raise refuse("CertificateMalformed", f"more than one {kind} certificate was supplied")
            return fitting[0]
        for one in self.leaves:
            if (
                one.signer == kind
                and one.hardware_id == report.chip_id
                and one.tcb == Tcb.decode(report.reported_tcb, one.product)
            ):
                return one
        raise refuse("CertificateMissing", fix="send the VCEK with the evidence or add it as collateral")


class _ChainCache:
    """A small thread-safe least-recently-used map from supplied certificates to verified chains."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chains: OrderedDict[tuple[int, tuple[bytes, ...]], Chain] = OrderedDict()

    def get(self, key: tuple[int, tuple[bytes, ...]]) -> Chain | None:
        with self._lock:
            chain = self._chains.get(key)
            if chain is not None:
                self._chains.move_to_end(key)
            return chain

    def put(self, key: tuple[int, tuple[bytes, ...]], chain: Chain) -> None:
        with self._lock:
            self._chains[key] = chain
            while len(self._chains) > CACHED_CHAINS:
                self._chains.popitem(last=False)


def _files(folder: Path) -> Iterable[tuple[Path, bytes]]:
    if not folder.is_dir():
        raise InvalidInput("the folder does not exist", where=str(folder))
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    if len(paths) > MAX_COLLATERAL_FILES:
        raise InvalidInput(f"more than {MAX_COLLATERAL_FILES} collateral files", where=str(folder))
    for path in paths:
        if path.stat().st_size > MAX_COLLATERAL_BYTES:
            raise InvalidInput("a collateral file is larger than 1 MiB", where=str(path))
        yield path, path.read_bytes()


def _read_crl(path: Path, data: bytes) -> x509.CertificateRevocationList:
    load = x509.load_pem_x509_crl if data.startswith(b"-----BEGIN") else x509.load_der_x509_crl
    try:
        return load(data)
    except Exception:
        raise InvalidInput("not a certificate revocation list", where=str(path)) from None
