"""The verifiers by TEE name of the KBS protocol, each with roots, collateral and policy from the configuration."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from crds.errors import InvalidInput
from keymgmt.attestation import (
    AttestationRefused,
    SnpPolicy,
    Tcb,
    TrustRoots,
    host_data_of,
    init_data_digest,
    parse_kbs_evidence,
    verify_snp,
)
from keymgmt.attestation.anchors import anchors_with
from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.freshness import FreshnessPolicy
from keymgmt.attestation.intel import BUILTIN_ANCHORS as INTEL_ANCHORS
from keymgmt.attestation.intel import (
    IntelAnchors,
    IntelCollateral,
    IntelEndorsements,
    SgxPolicy,
    TcbPolicy,
    TdxPolicy,
    verify_sgx,
    verify_tdx,
)
from keymgmt.attestation.intel.kbs_evidence import event_log_of, quote_of
from keymgmt.attestation.nitro import BUILTIN_ANCHORS as AWS_ANCHORS
from keymgmt.attestation.nitro import NitroPolicy, verify_nitro
from keymgmt.attestation.nitro.kbs_evidence import document_of
from keymgmt.attestation.refusal import refuse
from keymgmt.attestation.vtpm import PcrPolicy, parse_azure_evidence, verify_azure_cvm
from keymgmt.config import Attestation, IntelTcb


@dataclass(frozen=True, slots=True)
class Presented:
    """What a guest sent, as far as a verifier looks at it. `report_data` is what its hardware must have signed."""

    primary_evidence: object
    report_data: bytes
    init_data: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Verified:
    """The EAR submod, and the raw evidence that it stands on."""

    submod: dict[str, Any]
    evidence: bytes


class TeeVerifier(Protocol):
    """One TEE's verifier. `labels` name the roots that it trusts."""

    @property
    def labels(self) -> frozenset[str]: ...

    def verify(self, presented: Presented) -> Verified:
        """Raises AttestationRefused with its reason."""
        ...


def tee_verifiers(config: Attestation) -> dict[str, TeeVerifier]:
    """A verifier for every TEE name that the service answers to. Raises InvalidInput."""
    intel = _IntelCollateralAtHand(
        config.collateral_cache, anchors_with(INTEL_ANCHORS if config.trust_intel else {}, config.intel_roots)
    )
    snp = _Snp(config)
    return {
        "snp": snp,
        "az-snp-vtpm": _AzureCvm(snp.roots, snp.policy),
        "tdx": _Tdx(config, intel),
        "sgx": _Sgx(config, intel),
        "nitro": _Nitro(config),
    }


class _Snp:
    def __init__(self, config: Attestation) -> None:
        roots = TrustRoots.builtin_amd() if config.trust_amd else TrustRoots()
        for folder in config.local_trust_roots:
            roots = roots | TrustRoots.from_directory(folder)
        cached = (config.collateral_cache / "amd",) if config.collateral_cache else ()
        for folder in (*config.collateral_dirs, *(one for one in cached if one.is_dir())):
            roots = roots.with_collateral(folder)
        self.roots = roots
        tcb = config.snp.minimum_tcb
        self.policy = SnpPolicy(
            minimum_tcb=Tcb(tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode, tcb.fmc),
            products=frozenset(config.snp.products),
        )

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self.roots.anchors.values())

    def verify(self, presented: Presented) -> Verified:
        evidence = parse_kbs_evidence("snp", presented.primary_evidence)
        policy = self.policy
        if presented.init_data is not None:
            policy = replace(policy, host_data=host_data_of(init_data_digest(presented.init_data)))
        claims = verify_snp(
            evidence.report, evidence.certificates, self.roots, policy, presented.now, presented.report_data
        )
        return Verified(claims.as_ear_submod(), evidence.report)


class _AzureCvm:
    """Azure's confidential VMs: AMD's roots and the policy for SNP hold for the paravisor's report."""

    def __init__(self, roots: TrustRoots, policy: SnpPolicy) -> None:
        self._roots, self._policy = roots, policy

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self._roots.anchors.values())

    def verify(self, presented: Presented) -> Verified:
        evidence = parse_azure_evidence(presented.primary_evidence)
        digest = None if presented.init_data is None else init_data_digest(presented.init_data)
        now, nonce = presented.now, presented.report_data
        claims = verify_azure_cvm(evidence, (), self._roots, self._policy, PcrPolicy(), now, nonce, digest)
        return Verified(claims.as_ear_submod(), evidence.hcl_report + evidence.message)


class _IntelCollateralAtHand:
    """Authenticated collateral out of the cache, read again when the cache has news."""

    def __init__(self, folder: Path | None, anchors: IntelAnchors) -> None:
        self.anchors = anchors
        self._cache = None if folder is None else CollateralCache(folder, anchors)
        self._lock = threading.Lock()
        self._seen: str | None = None
        self._endorsements = IntelEndorsements()

    def current(self) -> IntelEndorsements:
        cache = self._cache
        if cache is None:
            return self._endorsements
        with self._lock:
            version = cache.version()
            if version != self._seen:
                self._endorsements = IntelEndorsements(self._read(cache))
                self._seen = version
            return self._endorsements

    def _read(self, cache: CollateralCache) -> list[IntelCollateral]:
        found = []
        for piece in cache.pieces("intel/"):
            try:
                one = IntelCollateral.parse(piece.body).authenticate(self.anchors)
            except AttestationRefused:
                continue  # a file that somebody altered; its platform has no collateral then
            found.append(one)
        return found


class _Tdx:
    def __init__(self, config: Attestation, collateral: _IntelCollateralAtHand) -> None:
        self._collateral = collateral
        self._policy = TdxPolicy(
            tcb=_tcb_policy(config.tdx),
            seam_measurements=_digests(config.tdx.seam_measurements, 48, "tdx.seamMeasurements"),
        )

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self._collateral.anchors.values())

    def verify(self, presented: Presented) -> Verified:
        quote, policy = quote_of(presented.primary_evidence), self._policy
        if presented.init_data is not None:
            policy = replace(policy, config_id=_padded(presented.init_data, 48))
        claims = verify_tdx(
            quote,
            self._collateral.current(),
            policy,
            presented.now,
            presented.report_data,
            self._collateral.anchors,
            event_log_of(presented.primary_evidence),
        )
        return Verified(claims.as_ear_submod(), quote)


class _Sgx:
    def __init__(self, config: Attestation, collateral: _IntelCollateralAtHand) -> None:
        self._collateral = collateral
        self._policy = SgxPolicy(tcb=_tcb_policy(config.sgx), signers=_digests(config.sgx.signers, 32, "sgx.signers"))

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self._collateral.anchors.values())

    def verify(self, presented: Presented) -> Verified:
        quote, policy = quote_of(presented.primary_evidence), self._policy
        if presented.init_data is not None:
            policy = replace(policy, config_id=_padded(presented.init_data, 64))
        claims = verify_sgx(
            quote,
            self._collateral.current(),
            policy,
            presented.now,
            presented.report_data,
            self._collateral.anchors,
        )
        return Verified(claims.as_ear_submod(), quote)


class _Nitro:
    def __init__(self, config: Attestation) -> None:
        self._anchors = anchors_with(AWS_ANCHORS if config.trust_aws_nitro else {}, config.nitro_roots)
        self._policy = NitroPolicy(max_age=timedelta(seconds=config.nitro.max_age_seconds))

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self._anchors.values())

    def verify(self, presented: Presented) -> Verified:
        if presented.init_data is not None:
            raise refuse("InitDataUnsupported", where="init-data", fix="send none; pin the PCRs in the release policy")
        document = document_of(presented.primary_evidence)
        claims = verify_nitro(
            document, self._policy, presented.now, expected_nonce=presented.report_data, anchors=self._anchors
        )
        return Verified(claims.as_ear_submod(), document)


def _tcb_policy(config: IntelTcb) -> TcbPolicy:
    age = config.maximum_collateral_age_days
    return TcbPolicy(
        statuses=frozenset(config.accepted_statuses),
        advisories=frozenset(config.accepted_advisories),
        freshness=FreshnessPolicy(
            max_age=None if age is None else timedelta(days=age),
            minimum_sequence=config.minimum_evaluation_number,
        ),
        allow_smt=config.allow_smt,
    )


def _padded(init_data: str, size: int) -> bytes:
    """An init-data digest as a field of `size` bytes holds it: cut, or padded with zeros."""
    return init_data_digest(init_data)[:size].ljust(size, b"\0")


def _digests(listed: tuple[str, ...] | None, size: int, where: str) -> frozenset[bytes] | None:
    if listed is None:
        return None
    found = frozenset(bytes.fromhex(one) for one in listed)
    if any(len(one) != size for one in found):
        raise InvalidInput(
            f"a digest has {size} bytes", where=f"attestation.{where}", fix=f"give {2 * size} hex digits"
        )
    return found
