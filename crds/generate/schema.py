"""pydantic JSON schema → Kubernetes structural schema (apiextensions v1).

A structural schema has no $ref, no null type, and every node has a type. What pydantic
writes for `X | None` becomes plain X (absent means unset), `const` becomes a
one-valued enum, and keywords that the API server refuses are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_KEEP = {
    "type",
    "description",
    "default",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
}
UNSET_BY_DEFAULT = "x-unset-by-default"
"""Marks a field whose default is None; `crds.generate.manifests` takes it out again."""
# pydantic's own additions: they say nothing to the API server.
_DROP = {
    "title",
    "$defs",
    "propertyNames",
    "additionalProperties",
    "properties",
    "items",
    "const",
    "anyOf",
    "allOf",
}


def structural(model_schema: Mapping[str, Any]) -> Schema:
    """The schema with all references resolved and cleaned for a CRD.

    Raises ValueError on a keyword that has no structural equivalent, so that a model
    cannot lose a check silently.
    """
    return _convert(model_schema, model_schema.get("$defs", {}))


def _convert(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    node = _resolve(node, defs)
    if node.get("x-kubernetes-int-or-string"):
        # The API server writes the anyOf of int-or-string itself; type must be absent.
        kept = {k: v for k, v in node.items() if k.startswith("x-") or (k in _KEEP and v is not None)}
        return kept | {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    out: Schema = {}
    for key, value in node.items():
        if key.startswith("x-kubernetes-") or (key in _KEEP and not (key == "default" and value is None)):
            out[key] = value
        elif key == "default":
            out[UNSET_BY_DEFAULT] = True
        elif key not in _DROP:
            raise ValueError(f"no structural equivalent for {key!r} in {node!r}")
    if "const" in node:
        out.setdefault("type", "string")
        out["enum"] = [node["const"]]
    if node.get("type") == "integer":
        out["format"] = "int64"
    if "properties" in node:
        out["properties"] = {name: _convert(child, defs) for name, child in node["properties"].items()}
    extra = node.get("additionalProperties")
    if isinstance(extra, Mapping):
        out["additionalProperties"] = _convert(extra, defs)
    elif extra is True and "properties" not in node:
        out["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in node:
        out["items"] = _convert(node["items"], defs)
    if "type" not in out:
        raise ValueError(f"a structural schema needs a type: {node!r}")
    return out


def _resolve(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    """Follow $ref and unwrap `X | None`; what stands beside the reference wins."""
    out = dict(node)
    while True:
        if "$ref" in out:
            target = defs[str(out.pop("$ref")).rsplit("/", 1)[-1]]
            out = _merge(target, out)
        elif "anyOf" in out and not out.get("x-kubernetes-int-or-string"):
            options = [option for option in out.pop("anyOf") if option.get("type") != "null"]
            if len(options) == 2 and all("const" in o or "enum" in o or o.get("type") == "string" for o in options):
                # "a name, or empty": the empty constant is allowed by the wider pattern.
                named = next(o for o in options if "const" not in o and "enum" not in o)
                options = [{**named, "pattern": f"^$|{named['pattern']}"} if "pattern" in named else named]
            if len(options) != 1:
                raise ValueError(f"anyOf of several types has no structural equivalent: {node!r}")
            out = _merge(options[0], out)
        else:
            return out


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Schema:
    rules = [*base.get("x-kubernetes-validations", []), *over.get("x-kubernetes-validations", [])]
    merged = {**base, **over}
    if rules:
        merged["x-kubernetes-validations"] = rules
    return merged
