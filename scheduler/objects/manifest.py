"""A manifest that is not in the cluster, as the workload that it would become there."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from crds.errors import InvalidInput
from crds.labels import SCHEDULING_GATE
from scheduler.explain.reasons import Reason
from scheduler.fleet import WorkloadState
from scheduler.objects import fleet_objects as translate
from scheduler.objects.job_shape import shape_of

Object = Mapping[str, Any]
KINDS = ("Job", "Workload")


def workload_of(
    manifest: Object,
    namespace: str,
    tenant: str,
    now: float,
    limit_ranges: Iterable[Object] = (),
    runtime_classes: Mapping[str, Object] | None = None,
) -> WorkloadState | Reason:
    """The state it would wait in from `now` on, or why the queue would refuse it.

    A batch/v1 Job, or a Workload with `spec.job` or `spec.podSets`. Raises InvalidInput
    for what is neither.
    """
    kind, name = manifest.get("kind", ""), _name(manifest)
    where = f"{kind} {name}"
    if kind not in KINDS:
        found = kind or "document without a kind"
        raise InvalidInput(f"cannot plan a {found}", where=name, fix="give a Job or a Workload")
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        raise InvalidInput("spec is missing", where=where, fix="write the spec")
    wanted: dict[str, Any] = dict(spec) if kind == "Workload" else {}
    try:
        job = manifest if kind == "Job" else spec.get("job")
        if job is not None:
            shape = shape_of(_gated(job), limit_ranges, runtime_classes)
            if shape.refusal is not None:
                return shape.refusal
            wanted = {"priority": shape.priority, **shape.settings, **wanted, "podSets": shape.pod_sets}
        if not wanted.get("podSets"):
            raise InvalidInput("it says nothing of its pods", where=where, fix="give spec.job or spec.podSets")
        meta = {"namespace": namespace, "name": name, "uid": f"planned-{name}"}
        state = translate.workload_state(
            {"metadata": meta, "spec": {**wanted, "tenant": tenant}},
            admitted=False,
            accelerator="",
            placements=(),
            finished=False,
            active=True,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"a field is missing or of the wrong type: {error}", where=where, fix="compare with `kubectl explain`"
        ) from None
    return replace(state, created_at=now)


def _name(manifest: Object) -> str:
    meta = manifest.get("metadata")
    name = (meta.get("name") or meta.get("generateName")) if isinstance(meta, Mapping) else None
    return str(name) if name else "unnamed"


def _gated(job: Object) -> dict[str, Any]:
    """As admission would complete it: with the scheduling gate in its template."""
    made = copy.deepcopy(dict(job))
    made.setdefault("metadata", {})
    template = made["spec"].setdefault("template", {})
    template.setdefault("metadata", {})
    pod = template.setdefault("spec", {})
    gates = pod.setdefault("schedulingGates", [])
    if not any(gate.get("name") == SCHEDULING_GATE for gate in gates):
        gates.append({"name": SCHEDULING_GATE})
    return made
