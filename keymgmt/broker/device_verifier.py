"""The verifier of GPUs and switches beside the CPU, with its roots, reference values and policy."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from crds.errors import InvalidInput
from keymgmt.attestation.composite import DevicePolicy, DeviceSet, parse_additional_evidence, verify_devices
from keymgmt.attestation.nvidia import NvidiaEndorsements, NvidiaPolicy, load_endorsements
from keymgmt.config import NvidiaAppraisal

LOOK_EVERY: Final = timedelta(seconds=10)
logger = logging.getLogger(__name__)


class DeviceVerifier:
    """What the configuration trusts and demands of devices.

    Roots and policy are fixed at start. Reference values and OCSP answers, which change while
    the service runs, are read again when their folders changed; if that fails, what was read
    before stays, and answers that run out refuse. The constructor raises InvalidInput.
    """

    def __init__(self, config: NvidiaAppraisal) -> None:
        self._config = config
        self._folders = (*config.reference_value_dirs, *config.ocsp_dirs)
        self._lock = threading.Lock()
        self._seen = _stamps(self._folders)
        self._looked: datetime | None = None
        self._endorsements = self._load()
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
        if not evidence:
            return DeviceSet()
        return verify_devices(evidence, self._current(now), self._policy, now, nonce)

    def _current(self, now: datetime) -> NvidiaEndorsements:
        with self._lock:
            if self._looked is None or not timedelta() <= now - self._looked < LOOK_EVERY:
                self._looked, found = now, _stamps(self._folders)
                if found != self._seen:
                    self._seen = found
                    try:
                        self._endorsements = replace(self._load(), roots=self._endorsements.roots)
                    except (InvalidInput, OSError) as error:
                        logger.error("reference values and OCSP answers are not taken up: %s", error)
            return self._endorsements

    def _load(self) -> NvidiaEndorsements:
        config = self._config
        return load_endorsements(
            trust_nvidia=config.trust_nvidia,
            root_folders=config.local_trust_roots,
            reference_folders=config.reference_value_dirs,
            ocsp_folders=config.ocsp_dirs,
            ocsp_responders=config.ocsp_responders,
        )


def _stamps(folders: tuple[Path, ...]) -> tuple[tuple[str, int, int], ...]:
    """Path, time of change and size of every file: another result means that something changed."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)
