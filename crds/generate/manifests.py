"""CustomResourceDefinition manifests from the kinds of `crds.registry`."""

from __future__ import annotations

from typing import Any

import yaml

from crds.generate.schema import UNSET_BY_DEFAULT, Schema, structural
from crds.labels import CATEGORY, GROUP, VERSION
from crds.registry import Column, Kind


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind, as a plain mapping."""
    schema = _object_schema(kind)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if kind.scale is not None:
        spec, status, selector = kind.scale
        version["subresources"]["scale"] = {
            "specReplicasPath": spec,
            "statusReplicasPath": status,
            "labelSelectorPath": selector,
        }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "kekkai"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": list(kind.short),
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _object_schema(kind: Kind) -> Schema:
    full = structural(kind.model.model_json_schema(by_alias=True))
    properties = full["properties"]
    spec, status = properties["spec"], properties["status"]
    _empty_object_defaults(full)
    _strip_status_defaults(status)
    schema: Schema = {
        "type": "object",
        "description": (kind.model.__doc__ or "").strip(),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "required": ["spec"] if "spec" in full.get("required", []) else [],
    }
    if not schema["required"]:
        del schema["required"]
    if "x-kubernetes-validations" in full:
        schema["x-kubernetes-validations"] = full["x-kubernetes-validations"]
    return schema


def _strip_status_defaults(node: Schema) -> None:
    node.pop("default", None)
    # A defaulted status field would show a value that nobody observed.
    for child in node.get("properties", {}).values():
        child.pop("default", None)
        _strip_status_defaults(child)
    if isinstance(node.get("items"), dict):
        _strip_status_defaults(node["items"])


def _empty_object_defaults(node: Schema) -> None:
    """Default a nested object to {} so that the defaults inside it apply (apiextensions semantics).

    Not where the model says None: there, absence means something.
    """
    for name, child in node.get("properties", {}).items():
        unset = child.pop(UNSET_BY_DEFAULT, False)
        whole = child.get("type") == "object" and "properties" in child and not child.get("required")
        if whole and not unset and name not in node.get("required", []):
            child["default"] = {}
        _empty_object_defaults(child)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            _empty_object_defaults(node[key])


def _column(column: Column) -> dict[str, Any]:
    out: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.wide:
        out["priority"] = 1
    return out


def to_yaml(document: dict[str, Any]) -> str:
    """One YAML document, long lines kept whole so that diffs are by field."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100_000)
