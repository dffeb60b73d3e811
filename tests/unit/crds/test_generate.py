from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import Field

from crds.generate.__main__ import MANIFESTS, REFERENCE
from crds.generate.manifests import crd, to_yaml
from crds.generate.reference import reference
from crds.generate.schema import structural
from crds.meta import Model
from crds.registry import KINDS


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def schema_of(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_written_manifest_is_what_the_model_says(kind: Any) -> None:
    assert (MANIFESTS / f"{kind.plural}.yaml").read_text() == to_yaml(crd(kind))


def test_written_reference_is_what_the_models_say() -> None:
    assert REFERENCE.read_text() == reference()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_quantity_is_a_float(kind: Any) -> None:
    assert [path for path, node in nodes(schema_of(kind)) if node.get("type") == "number"] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_list_and_text_of_spec_is_bounded(kind: Any) -> None:
    spec = schema_of(kind)["properties"]["spec"]
    loose = [
        path
        for path, node in nodes(spec)
        if (node.get("type") == "array" and "maxItems" not in node)
        or (
            node.get("type") == "string"
            and not ({"maxLength", "enum", "format"} & set(node))
            and "template" not in path
        )
    ]
    allowed = {".job.spec.managedBy", ".podSets[].tolerations[].key", ".podSets[].tolerations[].value"}
    assert set(loose) - allowed == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_rule_names_its_field(kind: Any) -> None:
    for _, node in nodes(schema_of(kind)):
        for rule in node.get("x-kubernetes-validations", []):
            assert "spec" in rule["message"] or "metadata" in rule["message"], rule


def test_absent_and_empty_are_told_apart() -> None:
    class Inner(Model):
        size: int = 3

    class Outer(Model):
        filled: Inner = Field(default_factory=Inner)
        absent: Inner | None = None

    schema = structural(Outer.model_json_schema(by_alias=True))
    assert schema["properties"]["absent"]["x-unset-by-default"] is True
    assert "x-unset-by-default" not in schema["properties"]["filled"]
    assert "x-unset-by-default" not in "".join(to_yaml(crd(kind)) for kind in KINDS)


def test_a_keyword_without_equivalent_is_an_error_not_a_loss() -> None:
    with pytest.raises(ValueError, match="exclusiveMinimum"):
        structural({"type": "integer", "exclusiveMinimum": 3})


def test_models_read_what_they_write() -> None:
    for path in MANIFESTS.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["spec"]["group"] == "kekkai.dev"
