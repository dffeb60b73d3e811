"""When the security master is in force."""

from __future__ import annotations

from typing import Any

from crds.baseline import PodSecurity, SecurityBaselineSpec
from operators.tenants.baseline import in_force


def namespace(name: str, level: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": level}, **metadata}}


def test_in_force_when_every_namespace_has_the_level() -> None:
    spec = SecurityBaselineSpec(pod_security=PodSecurity(level="restricted"))
    assert in_force(spec, [])[:2] == (True, "InForce")
    assert in_force(spec, [namespace("a", "restricted")]) == (True, "InForce", "level restricted in 1 tenant namespace")


def test_names_those_that_are_behind() -> None:
    spec = SecurityBaselineSpec(pod_security=PodSecurity(level="restricted"))
    ready, reason, message = in_force(
        spec, [namespace("a", "restricted"), namespace("b", "baseline"), {"metadata": {"name": "c"}}]
    )
    assert (ready, reason) == (False, "RollingOut")
    assert message == "2 of 3 namespaces are not at level restricted yet: b, c"


def test_a_namespace_that_goes_does_not_count() -> None:
    spec = SecurityBaselineSpec(pod_security=PodSecurity(level="restricted"))
    going = namespace("a", "baseline", deletionTimestamp="2026-01-01T00:00:00Z")
    assert in_force(spec, [going])[1] == "InForce"
