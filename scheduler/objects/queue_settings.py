"""What labels and annotations of a queued object say about how it is queued.

They are how people state on a Job what a Workload states in its spec. A value that
cannot be read is refused with its name, since a setting that is silently ignored would
be noticed only by what it costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from crds.labels import (
    ACCELERATORS,
    ADMISSION_CHECKS,
    DEVICE_MILLI,
    JURISDICTIONS,
    KEYS,
    MAXIMUM_RUNTIME,
    MIN_COUNT,
    PODS_READY_TIMEOUT,
    PREEMPTIBLE,
    PRIORITY,
    SPREAD,
    TOPOLOGY_PREFERRED,
    TOPOLOGY_REQUIRED,
)
from crds.workload import MAX_RUNTIME
from scheduler.objects.shape import INVALID_KEYS, INVALID_PRIORITY, INVALID_SETTING, Object, Refused

LEVELS = ("nvlinkDomain", "rack", "block", "zone", "site")
SETTINGS = (
    "topology",
    "residency",
    "accelerators",
    "preemptible",
    "maximumRuntimeSeconds",
    "podsReady",
    "admissionChecks",
)
"""Fields of a Workload's spec that annotations fill; a field that no annotation names is left alone."""
_PRIORITY = re.compile(r"^-?[0-9]{1,4}$")
_NUMBER = re.compile(r"^[0-9]{1,9}$")
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_CLASS = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_THROUGHPUT = re.compile(r"^[0-9]{1,6}(\.[0-9]{1,6})?$")
_DAY = 86_400


def priority_of(obj: Object) -> int:
    """The queue priority: label, or annotation, `kekkai.dev/priority`; 0 when neither is there."""
    text = _said(obj, PRIORITY) or "0"
    if not _PRIORITY.fullmatch(text) or not -1000 <= int(text) <= 1000:
        raise Refused(INVALID_PRIORITY, f"label {PRIORITY} is {text[:63]!r}", "set a whole number from -1000 to 1000")
    return int(text)


def keys_of(obj: Object) -> list[dict[str, str]]:
    """The ProtectedKeys that it unseals."""
    names = list(dict.fromkeys(_list(_said(obj, KEYS))))
    if len(names) > 16 or any(not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name) for name in names):
        raise Refused(INVALID_KEYS, f"{KEYS} is not a list of at most 16 key names", "write names, comma separated")
    return [{"name": name} for name in names]


def settings_of(obj: Object) -> dict[str, Any]:
    """The fields of `SETTINGS` that its annotations name, in wire form and complete with their defaults."""
    out: dict[str, Any] = {}
    for field, read in _READERS.items():
        value = read(obj)
        if value is not None:
            out[field] = value
    return out


def pod_set_settings(*holders: Object | None) -> dict[str, Any]:
    """minCount, deviceMilli and spread of one pod set: the first holder (template, then owner) that names it."""
    out: dict[str, Any] = {}
    found = {
        name: next((text for one in holders if one and (text := _said(one, name))), "")
        for name in (MIN_COUNT, DEVICE_MILLI, SPREAD)
    }
    if found[MIN_COUNT]:
        out["minCount"] = _whole(MIN_COUNT, found[MIN_COUNT], 1, 100_000)
    if found[DEVICE_MILLI]:
        out["deviceMilli"] = _whole(DEVICE_MILLI, found[DEVICE_MILLI], 1, 1000)
    if found[SPREAD]:
        out["spread"] = _level(SPREAD, found[SPREAD])
    return out


def _topology(obj: Object) -> dict[str, str] | None:
    required, preferred = _said(obj, TOPOLOGY_REQUIRED), _said(obj, TOPOLOGY_PREFERRED)
    if required and preferred:
        raise _invalid(TOPOLOGY_PREFERRED, preferred, f"set it or {TOPOLOGY_REQUIRED}, not both")
    if required:
        return {"required": _level(TOPOLOGY_REQUIRED, required)}
    return {"preferred": _level(TOPOLOGY_PREFERRED, preferred)} if preferred else None


def _residency(obj: Object) -> dict[str, Any] | None:
    text = _said(obj, JURISDICTIONS)
    codes = sorted(set(_list(text)))
    if len(codes) > 64 or any(not re.fullmatch("[A-Z]{2}", code) for code in codes):
        raise _invalid(JURISDICTIONS, text, "write ISO 3166-1 alpha-2 codes, comma separated, such as JP,DE")
    return {"jurisdictions": codes} if codes else None


def _accelerators(obj: Object) -> list[dict[str, str]] | None:
    text = _said(obj, ACCELERATORS)
    out: dict[str, str] = {}
    for one in _list(text):
        name, _, throughput = one.partition("=")
        throughput = throughput or "1"
        good = _CLASS.fullmatch(name) and _THROUGHPUT.fullmatch(throughput) and float(throughput) > 0
        if not good or name in out or len(out) == 16:
            fix = "write at most 16 classes, each once, as class=throughput, such as H200=1,H100=0.6"
            raise _invalid(ACCELERATORS, text, fix)
        out[name] = throughput
    return [{"type": name, "throughput": throughput} for name, throughput in out.items()] or None


def _preemptible(obj: Object) -> bool | None:
    text = _said(obj, PREEMPTIBLE)
    if text not in {"", "true", "false"}:
        raise _invalid(PREEMPTIBLE, text, "write true or false")
    return text == "true" if text else None


def _maximum_runtime(obj: Object) -> int | None:
    text = _said(obj, MAXIMUM_RUNTIME)
    return _whole(MAXIMUM_RUNTIME, text, 1, MAX_RUNTIME) if text else None


def _pods_ready(obj: Object) -> dict[str, int] | None:
    text = _said(obj, PODS_READY_TIMEOUT)
    if not text:
        return None
    timeout = _whole(PODS_READY_TIMEOUT, text, 1, _DAY)
    return {"timeoutSeconds": timeout, "backoffBaseSeconds": 60, "backoffMaxSeconds": 3600}


def _checks(obj: Object) -> list[str] | None:
    text = _said(obj, ADMISSION_CHECKS)
    names = list(dict.fromkeys(_list(text)))
    if len(names) > 8 or any(not _LABEL.fullmatch(name) for name in names):
        raise _invalid(ADMISSION_CHECKS, text, "write at most 8 names of checks, comma separated")
    return names or None


_READERS: Mapping[str, Callable[[Object], Any]] = {
    "topology": _topology,
    "residency": _residency,
    "accelerators": _accelerators,
    "preemptible": _preemptible,
    "maximumRuntimeSeconds": _maximum_runtime,
    "podsReady": _pods_ready,
    "admissionChecks": _checks,
}


def _said(obj: Object, name: str) -> str:
    meta = obj.get("metadata") or {}
    for kind in ("annotations", "labels"):
        text = (meta.get(kind) or {}).get(name)
        if text:
            return str(text).strip()
    return ""


def _list(text: str) -> list[str]:
    return [part for one in text.split(",") if (part := one.strip())]


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise _invalid(name, text, f"write a whole number from {least} to {most}")
    return int(text)


def _level(name: str, text: str) -> str:
    if text not in LEVELS:
        raise _invalid(name, text, f"write one of {', '.join(LEVELS)}")
    return text


def _invalid(name: str, text: str, fix: str) -> Refused:
    return Refused(INVALID_SETTING, f"annotation {name} is {text[:63]!r}", fix)
