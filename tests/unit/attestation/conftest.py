"""Vectors of real evidence and a self-made vendor, shared by the attestation tests."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local.hardware.snp.authority import Authority

REPO = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("KEKKAI_SHARED", REPO.parent / "shared"))
AMD = SHARED / "vectors" / "amd"
PINNED = datetime(2025, 8, 1, tzinfo=UTC)  # every leaf of the vectors is valid then
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def vector(name: str) -> bytes:
    """A file of the shared vectors; a missing one fails the test that needs it."""
    return (AMD / name).read_bytes()


def chain(product: str) -> dict[str, bytes]:
    """ASK, ARK and ASVK of a product as PEM."""
    parts = _PEM.findall(vector(f"{product}_ask_ark_asvk.pem"))
    return dict(zip(("ask", "ark", "asvk"), parts, strict=True))


@pytest.fixture(scope="session")
def genoa() -> Authority:
    """A vendor of our own, with keys smaller than AMD's so that making them is quick."""
    return Authority.create("Genoa", bits=3072, now=datetime(2025, 1, 1, tzinfo=UTC), with_vlek=True)


@pytest.fixture(scope="session")
def turin() -> Authority:
    return Authority.create("Turin", bits=3072, now=datetime(2025, 1, 1, tzinfo=UTC))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # AMD's serial number 0; the verifier's own filter is reset by pytest for each test.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:Parsed a serial number"))
