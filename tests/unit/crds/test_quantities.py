from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds import quantities
from crds.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "milli", "whole"),
    [("0.1", 100, 1), ("1", 1000, 1), ("500m", 500, 1), ("2k", 2_000_000, 2000), ("1e3", 1_000_000, 1000)],
)
def test_reads_what_kubernetes_writes(text: str, milli: int, whole: int) -> None:
    assert quantities.milli(text) == milli
    assert quantities.whole(text) == whole


def test_binary_suffixes_are_exact() -> None:
    assert quantities.whole("1.5Gi") == 3 * 2**29
    assert quantities.whole("8Ei") == 2**63


def test_rounds_up_as_kubernetes_does() -> None:
    assert quantities.milli("0.0001") == 1
    assert quantities.whole("1m") == 1


@pytest.mark.parametrize("text", ["", "1.2.3", "Gi", "4 GB", "1e99999", "0x10", "NaN", "9" * 65, "1Gi1"])
def test_refuses_with_place_and_fix(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        quantities.whole(text, "spec.node.memory")
    assert "spec.node.memory" in str(caught.value)
    assert "suffix" in str(caught.value)


@given(st.decimals(min_value=0, max_value=10**9, places=6))
def test_micro_is_exact_to_six_places(value: Decimal) -> None:
    assert quantities.micro(format(value, "f")) == int(value * 1_000_000)


@given(st.integers(0, 2**50), st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]))
def test_show_is_the_inverse_of_resource_units(units: int, name: str) -> None:
    assert quantities.resource_units(name, quantities.show(name, units)) == units
