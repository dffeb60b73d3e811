"""The monitor: what it expects, what surprises it, and that it goes on where it was."""

from datetime import timedelta

import pytest

from crds.errors import InvalidInput
from keymgmt.transparency.errors import NoteInvalid
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.merkle import CompactRange, leaf_hash
from keymgmt.transparency.monitor import UNEXPECTED, Monitor, MonitorState
from keymgmt.transparency.tiles import TileNodes
from tests.logs import AT, KEY, open_log, release

MINE = {
    "expect": [
        {
            "key": "aurora-train/dataset",
            "measurements": ["ab"],
            "max": 3,
            "notBefore": "2026-11-01T00:00:00Z",
            "notAfter": "2027-01-01T00:00:00+09:00",
        }
    ],
    "owned": ["aurora-"],
}


def test_each_surprise_is_told_apart_and_counts_outlive_a_restart(tmp_path):
    log = open_log(tmp_path)
    log.append([release(1), release(2)])
    watch = Monitor(KEY, MonitorState(), Expectations.parse(MINE))
    assert watch.follow(log.files) == []
    watch = Monitor(KEY, MonitorState.decode(watch.state.encode()), Expectations.parse(MINE))
    log.append(
        [
            release(3, measurement="evil"),
            release(4),
            release(1, key="aurora-train/other"),
            release(1, key="beta/theirs"),
            release(5, at=AT - timedelta(days=90)),
            release(6, at=AT + timedelta(days=90)),
        ]
    )
    alarms = watch.follow(log.files)
    assert {alarm.kind for alarm in alarms} == {UNEXPECTED}
    assert [alarm.index for alarm in alarms] == [2, 3, 4, 6, 7]
    for alarm, word in zip(alarms, ("measurement evil", "number 4 where 3", "none is", "before", "after"), strict=True):
        assert word in alarm.what
    assert watch.follow(log.files) == []  # each is told once


def test_bad_expectations_and_states():
    for wrong, field in (({"expect": [{"key": "a/b"}]}, "expect.0.max"), ({"expects": []}, "expects")):
        with pytest.raises(InvalidInput) as refused:
            Expectations.parse(wrong)
        assert field in refused.value.problem.where
    with pytest.raises(InvalidInput, match="twice"):
        Expectations.parse({"expect": [{"key": "a/b", "max": 1}] * 2})
    for wrong in (b"", b"[]", b'{"v": 2, "checkpoint": "", "counts": {}}', b'{"v": 1, "checkpoint": "", "counts": 3}'):
        with pytest.raises(NoteInvalid):
            MonitorState.decode(wrong)


def test_the_edge_of_a_tree_from_its_tiles(tmp_path):
    log, grown = open_log(tmp_path), CompactRange()
    leaves = [b"%d" % index for index in range(300)]
    log.append(leaves)
    for size in (0, 1, 5, 255, 256, 299):
        grown = CompactRange.over(size, TileNodes(log.files, 300))
        grown.extend(leaf_hash(one) for one in leaves[size:])
        assert grown.root() == log.checkpoint.root
