"""What one pod takes of a node, as the Kubernetes scheduler will count it.

Sources: API defaulting (`SetDefaults_Pod`: a limit without a request is the request),
the LimitRanger admission plugin (defaults of type Container), the RuntimeClass admission
plugin (`overhead.podFixed`), and `k8s.io/component-helpers/resource.PodRequests`.
A Job's template is counted before its pods exist, so all of these are applied here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crds.quantities import resource_units, show

Amounts = dict[str, int]
Spec = Mapping[str, Any]


def limit_defaults(limit_ranges: Iterable[Mapping[str, Any]]) -> tuple[Amounts, Amounts]:
    """(default requests, default limits) of containers in a namespace with these LimitRanges."""
    requests: Amounts = {}
    limits: Amounts = {}
    for limit_range in sorted(limit_ranges, key=lambda obj: str(obj["metadata"]["name"])):
        for item in (limit_range.get("spec") or {}).get("limits") or ():
            if item.get("type") == "Container":
                for field, into in (("defaultRequest", requests), ("default", limits)):
                    for name, amount in (item.get(field) or {}).items():
                        into.setdefault(name, resource_units(name, amount))
    return requests, limits


def pod_requests(
    spec: Spec,
    default_requests: Mapping[str, int] | None = None,
    default_limits: Mapping[str, int] | None = None,
    overhead: Mapping[str, Any] | None = None,
) -> Amounts:
    """Resources of one pod in scheduler units. Raises InvalidInput for a malformed quantity.

    The defaults are those of `limit_defaults`; `overhead` is the RuntimeClass's
    `overhead.podFixed`, used when the pod does not state its own yet.
    """

    def container(one: Spec) -> Amounts:
        return _container(one, default_requests or {}, default_limits or {})

    running: Amounts = {}
    for one in spec.get("containers") or ():
        _add(running, container(one))
    sidecars: Amounts = {}
    starting: Amounts = {}
    for one in spec.get("initContainers") or ():
        amounts = container(one)
        if one.get("restartPolicy") == "Always":
            _add(running, amounts)
            _add(sidecars, amounts)
            amounts = dict(sidecars)
        else:
            # It runs beside the sidecars that were started before it.
            _add(amounts, sidecars)
        _most(starting, amounts)
    total = running
    _most(total, starting)
    for name, amount in ((spec.get("resources") or {}).get("requests") or {}).items():
        # Pod-level resources replace the sum of the containers' (cpu, memory, hugepages).
        total[name] = resource_units(name, amount)
    for name, amount in (spec.get("overhead") or overhead or {}).items():
        total[name] = total.get(name, 0) + resource_units(name, amount)
    return {name: amount for name, amount in sorted(total.items()) if amount}


def exceeds(real: Mapping[str, int], counted: Mapping[str, int]) -> list[str]:
    """The resources of which a real pod takes more than was counted for it."""
    return [name for name, amount in real.items() if amount > counted.get(name, 0)]


def _container(one: Spec, default_requests: Mapping[str, int], default_limits: Mapping[str, int]) -> Amounts:
    resources = one.get("resources") or {}
    limits = {name: resource_units(name, amount) for name, amount in (resources.get("limits") or {}).items()}
    requests = {name: resource_units(name, amount) for name, amount in (resources.get("requests") or {}).items()}
    # Order matters: API defaulting comes first, the LimitRanger after it.
    amounts = {**limits, **requests}
    for name, amount in default_requests.items():
        amounts.setdefault(name, amount)
    for name, amount in default_limits.items():
        amounts.setdefault(name, amount)
    return amounts


def _add(into: Amounts, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        into[name] = into.get(name, 0) + amount


def _most(into: Amounts, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        into[name] = max(into.get(name, 0), amount)


def show_amounts(amounts: Mapping[str, int]) -> dict[str, str]:
    """As Kubernetes quantities."""
    return {name: show(name, amount) for name, amount in amounts.items()}


def read_amounts(quantities: Mapping[str, Any]) -> Amounts:
    """From Kubernetes quantities."""
    return {name: resource_units(name, amount) for name, amount in quantities.items()}
