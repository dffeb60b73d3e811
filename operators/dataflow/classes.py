"""Bandwidth and volume classes on real objects: what is in force, and the patches that ask for another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crds.dataflow import BandwidthClasses, VolumeIOClasses
from crds.labels import BANDWIDTH_CLASS
from crds.quantities import whole

Object = Mapping[str, Any]
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"  # bits/s, bandwidth CNI plugin


@dataclass(frozen=True, slots=True)
class InForce:
    """`asked`: the class that the objects ask for; `name`: the one in force on all of them; "" where they differ."""

    asked: str
    name: str
    message: str = ""


def bandwidth_in_force(declared: BandwidthClasses, target: Object, pods: Sequence[Object], asked: str) -> InForce:
    """`asked`: what this controller asked for last."""
    if declared.apply == "fabric":
        there = {_annotation(pod, BANDWIDTH_CLASS) for pod in pods}
        return InForce(asked, _only(there))
    template = target["spec"]["template"]
    wanted = _annotation(template, BANDWIDTH_CLASS)
    status = target.get("status") or {}
    if str((target["spec"].get("strategy") or {}).get("type") or "") == "Recreate":
        return InForce(
            wanted or asked, wanted, "its strategy is Recreate: a change of bandwidth would stop it; not done"
        )
    rolled = int(status.get("observedGeneration") or 0) >= int(target["metadata"].get("generation") or 0)
    rolled = rolled and int(status.get("updatedReplicas") or 0) >= int(status.get("replicas") or 0)
    return InForce(wanted or asked, wanted if rolled else "", "" if rolled else "it rolls out to new replicas")


def bandwidth_template(declared: BandwidthClasses, target: Object, name: str) -> dict[str, Any] | None:
    """The merge patch of the target that rolls out this class; None when it is asked for already, or cannot be."""
    if declared.apply == "fabric" or _annotation(target["spec"]["template"], BANDWIDTH_CLASS) == name:
        return None
    if str((target["spec"].get("strategy") or {}).get("type") or "") == "Recreate":
        return None
    rate = next((one.bytes_per_second for one in declared.classes if one.name == name), None)
    if rate is None:
        return None
    bits = str(whole(rate) * 8)
    annotations = {BANDWIDTH_CLASS: name, INGRESS: bits, EGRESS: bits}
    return {"spec": {"template": {"metadata": {"annotations": annotations}}}}


def pods_to_mark(declared: BandwidthClasses, pods: Iterable[Object], name: str) -> list[Object]:
    """Running pods that do not carry the fabric class yet."""
    if declared.apply != "fabric" or not name:
        return []
    return [pod for pod in pods if _annotation(pod, BANDWIDTH_CLASS) != name]


def claims_of(declared: VolumeIOClasses, claims: Iterable[Object]) -> list[Object]:
    """The service's claims, by name."""
    found = [one for one in claims if _selects(declared.claims, one) and not one["metadata"].get("deletionTimestamp")]
    return sorted(found, key=lambda one: str(one["metadata"]["name"]))


def volume_io_in_force(claims: Sequence[Object]) -> InForce:
    """Counted as in force only when each claim's status says so (status.currentVolumeAttributesClassName).

    A class that the backend refuses (modifyVolumeStatus Infeasible) is given up for the one in force.
    """
    if not claims:
        return InForce("", "", "no PersistentVolumeClaim has these labels")
    asked = _only({str(one["spec"].get("volumeAttributesClassName") or "") for one in claims})
    current = _only({str((one.get("status") or {}).get("currentVolumeAttributesClassName") or "") for one in claims})
    refused = [one for one in claims if _infeasible(one)]
    if refused:
        name = refused[0]["metadata"]["name"]
        return InForce(current or asked, current, f"the backend refuses {asked or 'the class'} for claim {name}")
    return InForce(asked or current, current, "" if asked == current else "the volumes are being modified")


def claims_to_change(claims: Sequence[Object], name: str) -> list[Object]:
    """Claims that ask for another class."""
    return [one for one in claims if name and (one["spec"].get("volumeAttributesClassName") or "") != name]


def pods_of(target: Object, pods: Iterable[Object]) -> list[Object]:
    """The target's pods that are not going, by name; of a selector only its matchLabels count."""
    labels = (target["spec"].get("selector") or {}).get("matchLabels") or {}
    if not labels:
        return []
    found = [one for one in pods if _selects(labels, one) and not one["metadata"].get("deletionTimestamp")]
    return sorted(found, key=lambda one: str(one["metadata"]["name"]))


def is_ready(pod: Object) -> bool:
    """Whether it serves."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _selects(labels: Mapping[str, str], obj: Object) -> bool:
    has = obj["metadata"].get("labels") or {}
    return all(has.get(name) == value for name, value in labels.items())


def _annotation(obj: Object, name: str) -> str:
    return str(((obj.get("metadata") or {}).get("annotations") or {}).get(name) or "")


def _only(values: set[str]) -> str:
    return next(iter(values)) if len(values) == 1 else ""


def _infeasible(claim: Object) -> bool:
    modify = (claim.get("status") or {}).get("modifyVolumeStatus") or {}
    return bool(modify.get("status") == "Infeasible")
