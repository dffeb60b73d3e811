"""What a verifier demands of every GPU and switch before any release policy is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from keymgmt.attestation.nvidia.certificates import Architecture
from keymgmt.attestation.nvidia.opaque import OpaqueData
from keymgmt.attestation.refusal import refuse


@dataclass(frozen=True, slots=True)
class NvidiaPolicy:
    """Appraisal policy for devices; the defaults are those of production.

    Versions are compared number by number, so that "570.86.10" is above "570.9". None means
    that the field is not looked at here. `modes` holds SPT, MPT, PPCIE; drivers that do not
    state their mode are refused when it is given.
    """

    architectures: frozenset[Architecture] = frozenset({"HOPPER", "BLACKWELL", "LS10"})
    require_reference_values: bool = True
    require_revocation: bool = False
    require_fwid: bool = False  # refuse drivers too old to state it
    minimum_driver: str = ""
    minimum_vbios: str = ""  # compared as hexadecimal numbers
    drivers: frozenset[str] | None = None
    vbioses: frozenset[str] | None = None
    modes: frozenset[str] | None = None


def appraise(architecture: Architecture, opaque: OpaqueData, policy: NvidiaPolicy) -> None:
    """Hold an authentic device against the policy. Raises the refusal of the first demand it misses."""
    if architecture not in policy.architectures:
        raise refuse("DeviceUnsupported", f"the policy does not accept {architecture}", where="arch")
    driver, vbios = opaque.driver_version, opaque.vbios_version
    if not opaque.switch:
        if policy.drivers is not None and driver not in policy.drivers:
            raise refuse("DriverNotAllowed", f"driver {driver} is not accepted", where="driver_version")
        if policy.minimum_driver and _ordinal(driver, 10) < _ordinal(policy.minimum_driver, 10):
            raise refuse(
                "DriverNotAllowed", f"driver {driver} is below {policy.minimum_driver}", where="driver_version"
            )
        if policy.modes is not None and opaque.mode not in policy.modes:
            raise refuse("DeviceModeNotAllowed", f"mode {opaque.mode or 'unstated'} is not accepted", where="mode")
    if policy.vbioses is not None and vbios not in policy.vbioses:
        raise refuse("DriverNotAllowed", f"firmware {vbios} is not accepted", where="vbios_version")
    if policy.minimum_vbios and _ordinal(vbios, 16) < _ordinal(policy.minimum_vbios, 16):
        raise refuse("DriverNotAllowed", f"firmware {vbios} is below {policy.minimum_vbios}", where="vbios_version")


def _ordinal(version: str, base: int) -> tuple[int, ...]:
    """A version as numbers; one that is none sorts below all others and so is refused."""
    try:
        return tuple(int(part, base) for part in version.split("."))
    except ValueError:
        return ()
