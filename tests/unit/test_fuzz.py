"""A short fuzzing campaign of every parser of outside bytes; `make fuzz` runs the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.targets import Target, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_hostile_bytes_end_in_a_typed_error(target: Target) -> None:
    found = run(target, iterations=1500, watch_memory=True)
    assert [(told, data[:200].hex()) for data, told in found.faults] == []
    assert found.inputs == 1500
