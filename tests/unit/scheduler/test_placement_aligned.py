"""Pods are kept to rows whose free room has their proportions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scheduler.placement.aligned import aligned
from scheduler.placement.bestfit import capacity


def test_a_pod_that_needs_much_cpu_goes_where_devices_are_few() -> None:
    free = np.array([[8, 49], [4, 42]])  # devices, cores
    assert aligned(free, np.array([1, 10]), np.array([0, 1]), 2) == [(1, 2)]


def test_equal_rows_are_taken_in_their_order() -> None:
    free = np.array([[4, 4], [4, 4], [4, 4]])
    assert aligned(free, np.array([4, 4]), np.array([1, 2]), 1) == [(1, 1)]


ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=6)


@given(ROWS, st.integers(0, 3), st.integers(1, 3), st.integers(1, 8))
def test_all_pods_are_placed_where_they_fit_or_none(rows, devices, cores, count) -> None:
    free, request = np.array(rows), np.array([devices, cores])
    before, allowed = free.copy(), np.arange(len(rows))
    found = aligned(free, request, allowed, count)
    assert (free == before).all()
    caps = capacity(free, request)
    assert (found is not None) == (int(caps.sum()) >= count)
    assert found is None or sum(pods for _, pods in found) == count
    assert all(pods <= caps[row] for row, pods in found or ())
