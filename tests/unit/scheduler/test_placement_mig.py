"""MIG placements: those of the hardware, never two on one slice, and the choice that keeps most room of use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.placement.fragments import GAMMA
from scheduler.placement.mig import MEDIA_BIT, MODELS, MigWorth, Slot, starts

H100 = MODELS["H100"]
MIX = {"1g.10gb": 0.4, "2g.20gb": 0.2, "3g.40gb": 0.3, "7g.80gb": 0.1}
WORTH = MigWorth(H100, MIX)
COMPUTE = {name: int(name[0]) for model in MODELS.values() for name in model.profiles}


def value(state: int) -> float:
    """The definition, slice by slice."""
    total = 0.0
    for at in range(8):
        part = sum(
            share
            for name, share in MIX.items()
            if any(H100.profile(name).taken(start) >> at & 1 for start in starts(H100.profile(name), state))
        )
        total += 125 * part**GAMMA if part else 0.0
    return total


VALUE = [value(state) for state in range(512)]


def greedy_most(profile) -> int:
    """How many instances of a profile an empty device takes, each at its first place."""
    state = count = 0
    while free := starts(profile, state):
        state |= profile.taken(free[0])
        count += 1
    return count


@pytest.mark.parametrize(
    ("name", "most"),
    [("1g.10gb", 7), ("1g.10gb+me", 1), ("1g.20gb", 4), ("2g.20gb", 3), ("3g.40gb", 2), ("4g.40gb", 1), ("7g.80gb", 1)],
)
def test_an_empty_device_takes_as_many_as_the_user_guide_says(name: str, most: int) -> None:
    assert greedy_most(H100.profile(name)) == most


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_no_reachable_state_exceeds_the_compute_slices(model) -> None:
    limit = max(COMPUTE[name] for name in model.profiles)
    seen: dict[int, int] = {0: 0}  # state → most compute slices in use
    todo = [0]
    while todo:
        state = todo.pop()
        for profile in model.profiles.values():
            for start in starts(profile, state):
                after, used = state | profile.taken(start), seen[state] + COMPUTE[profile.name]
                if used > seen.get(after, -1):
                    seen[after] = used
                    todo.append(after)
    assert max(seen.values()) == limit
    assert all(state & 0xFF < 1 << model.slices for state in seen)


STEPS = st.lists(st.tuples(st.sampled_from(sorted(H100.profiles)), st.booleans(), st.integers(0, 30)), max_size=40)


@settings(deadline=None, max_examples=40)
@given(STEPS, st.integers(1, 3), st.integers(1, 3))
def test_no_slice_is_given_twice_and_an_instance_is_refused_only_when_it_fits_nowhere(steps, nodes, devices) -> None:
    states = np.zeros((nodes, devices), dtype=np.int64)
    held: list[tuple[str, Slot]] = []
    for name, release, which in steps:
        if release and held:
            name, slot = held.pop(which % len(held))
            states[slot.row, slot.device] &= ~H100.profile(name).taken(slot.start)
            continue
        profile = H100.profile(name)
        slot = WORTH.place(profile, states)
        assert (slot is None) == (not any(starts(profile, int(state)) for state in states.ravel()))
        if slot is None:
            continue
        assert slot.start in profile.starts
        bits = profile.taken(slot.start)
        assert states[slot.row, slot.device] & bits == 0
        states[slot.row, slot.device] |= bits
        held.append((name, slot))
    together = np.zeros_like(states)
    for name, slot in held:
        together[slot.row, slot.device] |= H100.profile(name).taken(slot.start)
    assert (together == states).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 511), min_size=1, max_size=6), st.sampled_from(sorted(H100.profiles)))
def test_the_choice_is_the_least_loss_by_the_definition_and_ties_go_as_stated(found, name) -> None:
    profile = H100.profile(name)
    options = []
    for row, state in enumerate(found):
        for start in starts(profile, state):
            lost = round((VALUE[state] - VALUE[state | profile.taken(start)]) * 10_000)
            options.append((lost, 8 - (state & 0xFF).bit_count(), row, start))
    slot = WORTH.place(profile, np.array(found).reshape(-1, 1))
    assert slot == (Slot(min(options)[2], 0, min(options)[3]) if options else None)


def test_small_instances_leave_the_places_of_large_ones_free() -> None:
    worth, states = WORTH, np.zeros((1, 2), dtype=np.int64)
    for _ in range(3):
        profile = H100.profile("1g.10gb")
        slot = worth.place(profile, states)
        states[slot.row, slot.device] |= profile.taken(slot.start)
    assert sorted(map(int, states[0]))[0] == 0  # one device stays whole
    assert worth.place(H100.profile("3g.40gb"), states[:, states[0] != 0]) is not None


def test_the_order_of_the_mix_decides_nothing() -> None:
    backwards = dict(reversed(MIX.items()))
    assert (WORTH.of == MigWorth(H100, backwards).of).all()


def test_media_extensions_are_given_once_and_unknown_profiles_are_named() -> None:
    profile = H100.profile("1g.10gb+me")
    assert starts(profile, 1 << MEDIA_BIT) == ()
    with pytest.raises(ValueError, match=r"H100 has no MIG profile 1g\.5gb; it has 1g\.10gb"):
        MigWorth(H100, {"1g.5gb": 1.0})
    assert WORTH.place(profile, np.zeros((0, 1), dtype=np.int64)) is None
