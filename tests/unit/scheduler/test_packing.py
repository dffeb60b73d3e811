"""Fragmentation scoring: its definition, and that what is kept between placements stays true."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.placement.fragments import PodShape, Worth, typical
from scheduler.placement.packer import Packer

KINDS = ["H100", "H200"]
SHAPES = [
    PodShape(2, 4, 1, 1000),
    PodShape(1, 1, 1, 300),
    PodShape(4, 1, 1, 810),
    PodShape(3, 9, 2, 1000),
    PodShape(5, 5),
    PodShape(1, 2, 1, 500, frozenset({"H200"})),
]
MIX = {shape: 1 / len(SHAPES) for shape in SHAPES}


def packer(worth: Worth | None = None) -> Packer:
    cpu, memory = np.array([8, 10, 12, 3]), np.array([20, 9, 16, 30])
    free = np.array([[1000, 1000], [1000, 0], [1000, 1000], [1000, 1000]])
    return Packer(cpu, memory, free, ["H100", "H200", "H200", "H100"], worth or Worth(MIX, KINDS), KINDS)


def fragment(cpu: int, memory: int, free: list[int], kind: str) -> float:
    """The paper's definition, written out: free devices that a typical pod cannot use, over the pods with devices."""
    total = 0.0
    for shape, part in MIX.items():
        if not shape.devices:
            continue
        usable = [room for room in free if room >= shape.milli]
        runs = cpu >= shape.cpu and memory >= shape.memory and len(usable) >= shape.devices
        runs = runs and (not shape.kinds or kind in shape.kinds)
        total += part * (sum(free) - (sum(usable) if runs else 0))
    return total


@given(
    st.integers(0, 8),
    st.integers(0, 12),
    st.lists(st.integers(0, 1000), min_size=2, max_size=2),
    st.sampled_from(KINDS),
)
def test_without_reach_and_gamma_it_is_the_fragment_of_the_paper(cpu, memory, free, kind) -> None:
    worth = Worth(MIX, KINDS, gamma=1.0, reach=False)
    value = worth.of(np.array([cpu]), np.array([memory]), np.array([free]), np.array([KINDS.index(kind)]))[0]
    with_devices = sum(part for shape, part in MIX.items() if shape.devices)
    assert value == pytest.approx(with_devices * sum(free) - fragment(cpu, memory, free, kind))


def test_a_remainder_that_nobody_can_use_is_worth_nothing() -> None:
    worth = Worth(MIX, KINDS)
    free = np.array([[299, 0], [300, 0], [1000, 0]])
    values = worth.of(np.full(3, 50), np.full(3, 50), free, np.zeros(3, dtype=np.int64))
    assert values[0] == 0
    assert 0 < values[1] < values[2]
    assert (Worth({}, KINDS).of(np.full(3, 50), np.full(3, 50), free, np.zeros(3, dtype=np.int64)) == 0).all()


STEPS = st.lists(st.tuples(st.integers(0, len(SHAPES) - 1), st.booleans()), max_size=30)


@settings(max_examples=60)
@given(STEPS)
def test_what_is_kept_equals_what_is_worked_out_anew_and_nothing_is_overcommitted(steps) -> None:
    kept, held = packer(), []
    for index, release in steps:
        if release and held:
            shape, spot = held.pop(index % len(held))
            kept.release(shape, spot)
            continue
        fresh = Packer(kept.cpu, kept.memory, kept.free, ["H100", "H200", "H200", "H100"], Worth(MIX, KINDS), KINDS)
        shape = SHAPES[index]
        spot = kept.place(shape)
        assert spot == fresh.place(shape)
        if spot is not None:
            assert len(spot.devices) == shape.devices
            held.append((shape, spot))
        assert min(kept.cpu.min(), kept.memory.min(), kept.free.min()) >= 0
        assert kept.free.max() <= 1000
    for shape, spot in held:
        kept.release(shape, spot)
    start = packer()
    assert (kept.cpu == start.cpu).all()
    assert (kept.free == start.free).all()


def test_a_pod_is_refused_only_when_it_fits_nowhere() -> None:
    full = packer()
    assert full.place(PodShape(99, 1, 1, 1000)) is None
    assert full.place(PodShape(1, 1, 2, 1000, frozenset({"H200"}))).row == 2
    assert full.place(PodShape(1, 1, 2, 1000, frozenset({"H200"}))) is None
    assert full.place(PodShape(1, 1, 1, 1, frozenset({"A100"}))) is None


def test_a_share_goes_where_it_leaves_the_least_waste() -> None:
    mix = {PodShape(1, 1, 1, 1000): 0.5, PodShape(1, 1, 1, 400): 0.5}
    cpu = memory = np.array([50, 50])
    both = Packer(cpu, memory, np.array([[1000, 1000], [1000, 400]]), ["H100"] * 2, Worth(mix, KINDS), KINDS)
    assert both.place(PodShape(1, 1, 1, 400)) is not None
    assert both.free.tolist() == [[1000, 1000], [1000, 0]]


def test_typical_shapes_cover_what_was_seen() -> None:
    seen = Counter({SHAPES[0]: 90, SHAPES[1]: 6, SHAPES[2]: 4})
    assert list(typical(seen, 0.95)) == SHAPES[:2]
    assert sum(typical(seen, 0.95).values()) == pytest.approx(1.0)
    assert typical(seen, 1.0, most=1) == {SHAPES[0]: 1.0}
    assert typical(Counter()) == {}


@pytest.mark.parametrize("bad", [(1, 1, 2, 500), (1, 1, 1, 1001), (-1, 1, 0, 0), (1, 1, 1, 0), (1, 1, 0, 500)])
def test_shapes_that_make_no_sense_are_refused(bad) -> None:
    with pytest.raises(ValueError, match=r"out of range|shares of|go together"):
        PodShape(*bad)
