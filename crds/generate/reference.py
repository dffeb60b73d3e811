"""The API reference (docs/reference/api.md) from the same schemas as the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crds.generate.manifests import crd
from crds.generate.schema import Schema
from crds.labels import API_VERSION
from crds.registry import KINDS, Kind

_HEAD = f"""# API reference

Generated from the models in `crds/` by `make generate`. All kinds are served at `{API_VERSION}`
and carry the category `kekkai` (`kubectl get kekkai`).
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(kind) for kind in KINDS)])


def _section(kind: Kind) -> str:
    document = crd(kind)
    schema: Schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [
        f"## {kind.name}",
        "",
        schema["description"],
        "",
        f"{'Namespaced' if kind.namespaced else 'Cluster-scoped'} · short names: "
        + ", ".join(f"`{name}`" for name in kind.short),
        "",
        "| field | type | default | what it means |",
        "|---|---|---|---|",
    ]
    for part in ("spec", "status"):
        lines += [
            f"| `{path}`{' *' if required else ''} | {_type(node)} | {_default(node)} | {_text(node)} |"
            for path, node, required in _walk(schema["properties"][part], part)
        ]
    rules = list(_rules(schema, ""))
    if rules:
        lines += ["", "Checked at admission:", "", *(f"- {message}" for message in rules)]
    return "\n".join([*lines, ""])


def _walk(node: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, child, name in node.get("required", [])
        if not here.endswith(".conditions"):
            yield from _walk(child, here)
        if isinstance(child.get("items"), dict) and name != "conditions":
            yield from _walk(child["items"], f"{here}[]")


def _rules(node: Any, path: str) -> Iterator[str]:
    for found in node.get("x-kubernetes-validations", []):
        yield found["message"]
    for child in node.get("properties", {}).values():
        yield from _rules(child, path)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _rules(node[key], path)


def _type(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" if value else "empty" for value in node["enum"])
    if node["type"] == "array":
        inner = node["items"]
        return f"list of {inner.get('type', 'quantity')}"
    if "additionalProperties" in node:
        return "map"
    return str(node.get("format") if node.get("format") == "date-time" else node["type"])


def _default(node: Schema) -> str:
    value = node.get("default")
    return "" if value is None or value == {} else f"`{value}`"


def _text(node: Schema) -> str:
    return str(node.get("description", "")).replace("\n", " ").replace("|", "\\|")
