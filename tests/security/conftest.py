"""Fixtures of the adversaries against the key service: one service a test process, in the custodial profile."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.keymgmt_harness import Custodians, Guest, Service

_NUMBERS = itertools.count()


@dataclass
class Victim:
    """A tenant with two-of-three custodians and one active key that its own guest can get."""

    service: Service
    custodians: Custodians
    key: str
    made: dict[str, Any]
    policy: dict[str, Any]

    def guest(self, **fields: Any) -> Guest:
        """An attested guest; of the right measurement unless told otherwise."""
        guest = Guest(self.service, **fields)
        assert guest.attest().status_code == 200
        return guest

    def secret(self) -> bytes:
        """The key, as the tenant's own guest gets it."""
        guest = self.guest()
        return bytes(guest.open(guest.fetch(self.key)))

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The log's entries of a type that speak of the key."""
        found = [one for one in self.service.entries() if one["type"] == kind]
        return [one for one in found if one.get("key") in (self.key, None)]

    def denied(self) -> list[str]:
        """Reasons of the logged denials, oldest first."""
        return [str(one["reason"]) for one in self.entries("denial")]


@pytest.fixture(scope="session")
def key_service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("victims")) as running:
        yield running


def make_victim(service: Service, **policy: Any) -> Victim:
    name = f"victim-{next(_NUMBERS)}"
    custodians = Custodians(name, count=3, threshold=2)
    made, document = custodians.set_up(service, f"{name}/dataset", **policy)
    return Victim(service, custodians, f"{name}/dataset", made, document)


@pytest.fixture
def victim(key_service):
    return make_victim(key_service)
