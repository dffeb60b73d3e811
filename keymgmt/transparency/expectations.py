"""Which releases an owner expects: per key how many, to which measurements, when.

A file of YAML or JSON: `{"expect": [{"key": "aurora-train/dataset", "measurements": ["ab…"], "max": 64,
"notBefore": "2026-11-01T00:00:00Z", "notAfter": "…"}], "owned": ["aurora-train/"]}`. A release of a key
that is named, or that starts with one of `owned`, and meets no expectation, is a surprise.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from crds.errors import InvalidInput


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Expectation(_Part):
    """One key's expected releases. No `measurements`: any; `max` counts over the log's whole life."""

    key: Annotated[str, Field(min_length=1, max_length=400)]
    measurements: tuple[str, ...] | None = None
    max: Annotated[int, Field(ge=0)]
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None

    def unmet(self, entry: Mapping[str, Any], counted: int) -> str:
        """Why a release is not what is expected here; empty if it is. `counted`: releases before it."""
        at = datetime.fromisoformat(str(entry["at"]))
        if self.measurements is not None and entry.get("measurement") not in self.measurements:
            return f"to the measurement {entry.get('measurement')}"
        if self.not_before is not None and at < self.not_before:
            return f"before {self.not_before.isoformat()}"
        if self.not_after is not None and at > self.not_after:
            return f"after {self.not_after.isoformat()}"
        if counted >= self.max:
            return f"number {counted + 1} where {self.max} are expected"
        return ""


class Expectations(_Part):
    """The whole file."""

    expect: Annotated[tuple[Expectation, ...], Field(max_length=4096)] = ()
    owned: tuple[str, ...] = ()

    @classmethod
    def parse(cls, document: Any, where: str = "expectations") -> Expectations:
        """Validate a parsed document. Raises InvalidInput naming the field."""
        try:
            found = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(first["msg"], where=f"{where}: {field}", fix="see docs/transparency-log.md") from None
        keys = [one.key for one in found.expect]
        if len(set(keys)) != len(keys):
            raise InvalidInput("a key is named twice", where=where, fix="one expectation a key")
        return found

    def concern(self, entry: Mapping[str, Any]) -> bool:
        """Whether the owner of this file looks after the entry's key."""
        key = str(entry.get("key"))
        return any(one.key == key for one in self.expect) or key.startswith(self.owned)

    def surprise(self, entry: Mapping[str, Any], counts: dict[str, int]) -> str:
        """Count a release; why it was not expected, empty if it was."""
        key = str(entry.get("key"))
        counted = counts.get(key, 0)
        counts[key] = counted + 1
        for one in self.expect:
            if one.key == key:
                why = one.unmet(entry, counted)
                return f"release of {key} {why}" if why else ""
        return f"release of {key}, of which none is expected"
