"""The verifier of GPUs and switches beside the CPU, with its roots, reference values and policy."""

from __future__ import annotations

from datetime import datetime

from keymgmt.attestation.composite import DevicePolicy, DeviceSet, parse_additional_evidence, verify_devices
from keymgmt.attestation.nvidia import NvidiaPolicy, load_endorsements
from keymgmt.config import NvidiaAppraisal


class DeviceVerifier:
    """What the configuration trusts and demands of devices; fixed at start. Raises InvalidInput."""

    def __init__(self, config: NvidiaAppraisal) -> None:
        self._endorsements = load_endorsements(
            trust_nvidia=config.trust_nvidia,
            root_folders=config.local_trust_roots,
            reference_folders=config.reference_value_dirs,
            ocsp_folders=config.ocsp_dirs,
            ocsp_responders=config.ocsp_responders,
        )
        self._policy = DevicePolicy(
            NvidiaPolicy(
                require_reference_values=config.require_reference_values,
                require_revocation=config.require_revocation,
                minimum_driver=config.minimum_driver,
                modes=None if config.modes is None else frozenset(config.modes),
            ),
            config.require_topology,
        )

    @property
    def labels(self) -> frozenset[str]:
        """Names of the trusted roots."""
        return frozenset(self._endorsements.roots.values())

    def verify(self, additional_evidence: str, nonce: bytes, now: datetime) -> DeviceSet:
        """Verify all devices of a request, of which there may be none. Raises AttestationRefused."""
        evidence = parse_additional_evidence(additional_evidence)
        return verify_devices(evidence, self._endorsements, self._policy, now, nonce)
