"""Site: a place where pools stand, with its jurisdiction and its distances to other sites."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import (
    IMMUTABLE,
    CountryCode,
    DnsLabel,
    Model,
    Resource,
    checked,
    constrained,
    rule,
)
from crds.quantities import DecimalText


class Location(Model):
    """WGS 84 coordinates, as decimal text."""

    latitude: DecimalText = Field(description="Degrees north, -90 to 90.")
    longitude: DecimalText = Field(description="Degrees east, -180 to 180.")


class RoundTrip(Model):
    """A measured network distance to another site."""

    to: DnsLabel = Field(description="Name of the other Site.")
    p95_micros: int = Field(ge=1, le=60_000_000, description="95th percentile of the round-trip time, microseconds.")
    measured_at: str = Field(
        json_schema_extra={"format": "date-time"},
        description="When it was measured; stale values are refused.",
    )


class SiteSpec(Model):
    """What the operator states about a site."""

    model_config = checked(
        rule(
            "!has(self.roundTrips) || self.roundTrips.all(r, self.roundTrips.exists_one(s, s.to == r.to))",
            "spec.roundTrips: two entries name the same site; keep one entry a site",
        ),
    )
    jurisdiction: CountryCode = Field(
        description="Country whose law applies, ISO 3166-1 alpha-2. Residency is a hard filter on it.",
        json_schema_extra=constrained(
            rule(
                IMMUTABLE,
                "spec.jurisdiction cannot change, since keys and data are bound to it; make a new Site",
            ),
        ),
    )
    location: Location | None = Field(default=None, description="Where it stands.")
    round_trips: list[RoundTrip] = Field(
        default_factory=list, max_length=64, description="Measured distances to other sites."
    )


class SiteStatus(Model):
    """What the operators observed."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    nodes: int = Field(default=0, ge=0, description="Nodes of this site's pools.")


class Site(Resource):
    """A place where accelerator pools stand."""

    kind: Literal["Site"] = "Site"
    spec: SiteSpec
    status: SiteStatus = Field(default_factory=SiteStatus)
