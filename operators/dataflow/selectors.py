"""Label selectors as they come in a query string (apimachinery labels.Parse), over a set of labels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from crds.errors import InvalidInput

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]{0,251}[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_EQUAL = re.compile(rf"\s*(?P<key>{_KEY})\s*(?P<how>==|=|!=)\s*(?P<value>{_VALUE})\s*")
_SET = re.compile(rf"\s*(?P<key>{_KEY})\s+(?P<how>in|notin)\s*\((?P<values>[^()]{{0,2000}})\)\s*")
_EXISTS = re.compile(rf"\s*(?P<not>!?)\s*(?P<key>{_KEY})\s*")
_COMMA = re.compile(r",(?![^(]*\))")
_LONGEST = 4096


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether these labels are selected; all are by "". Raises InvalidInput for what is no selector."""
    if len(selector) > _LONGEST:
        raise _bad(selector)
    return all(_holds(term, labels) for term in _COMMA.split(selector)) if selector.strip() else True


def _holds(term: str, labels: Mapping[str, str]) -> bool:
    found = _EQUAL.fullmatch(term)
    if found is not None:
        return (labels.get(found["key"]) == found["value"]) == (found["how"] != "!=")
    found = _SET.fullmatch(term)
    if found is not None:
        return (labels.get(found["key"]) in {one.strip() for one in found["values"].split(",")}) == (
            found["how"] == "in"
        )
    found = _EXISTS.fullmatch(term)
    if found is not None:
        return (found["key"] in labels) == (not found["not"])
    raise _bad(term)


def _bad(text: str) -> InvalidInput:
    return InvalidInput(f"{text[:100]!r} is no label selector", where="labelSelector", fix="write workload=NAME")
