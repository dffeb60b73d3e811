"""A log that forks: two histories, both properly signed, shown to different people."""

import pytest

from keymgmt.transparency.errors import WitnessesUnreachable
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.monitor import FORK, WITNESSES, Monitor, MonitorState
from keymgmt.transparency.note import Checkpoint
from tests.logs import KEY, cosigner, identity, open_log, peers, release


@pytest.fixture
def two_views(tmp_path):
    views = []
    for side in ("a", "b"):
        log = open_log(tmp_path / side)
        log.append([release(1), release(2)])
        log.append([release(3, measurement=side)])
        views.append(log)
    return views


def follow(log, **options):
    watch = Monitor(KEY, MonitorState(), Expectations.parse({}), **options)
    assert watch.follow(log.files) == []
    return watch


def test_a_monitor_that_followed_one_view_is_shown_the_other(two_views):
    watch = follow(two_views[0])
    (alarm,) = watch.follow(two_views[1].files)
    assert alarm.kind == FORK
    # The two signed notes in the alarm prove it to a third party: same size, other root.
    mine, theirs = (Checkpoint.open(alarm.evidence[side].encode(), KEY) for side in ("followed", "shown"))
    assert mine.size == theirs.size
    assert mine.root != theirs.root
    assert watch.state.checkpoint(KEY) == mine  # it does not move to the other history


def test_two_monitors_that_compare_notes(two_views):
    one, other = follow(two_views[0]), follow(two_views[1])
    assert [alarm.kind for alarm in one.compare(two_views[0].files, [other.state.signed])] == [FORK]
    assert one.compare(two_views[0].files, [one.state.signed]) == []


def test_a_longer_other_view(two_views):
    one = follow(two_views[0])
    two_views[0].append([release(4)])
    two_views[1].append([release(4)])
    assert [alarm.kind for alarm in one.compare(two_views[0].files, [two_views[1].signed_checkpoint])] == [FORK]


def test_the_second_history_gets_no_quorum_and_monitors_miss_the_cosignatures(tmp_path):
    honest = open_log(tmp_path / "a", cosigner(peers(tmp_path)))
    honest.append([release(1)])
    honest.append([release(2)])
    forked = open_log(tmp_path / "b")
    forked.append([release(1, measurement="evil"), release(2)])
    with pytest.raises(WitnessesUnreachable, match="0 of 2"):
        open_log(tmp_path / "b", cosigner(peers(tmp_path))).append([release(3)])
    keys = [identity(number).key for number in (1, 2, 3)]
    follow(honest, witnesses=keys, quorum=2)
    blind = Monitor(KEY, MonitorState(), Expectations.parse({}), keys, 2)
    assert [alarm.kind for alarm in blind.follow(forked.files)] == [WITNESSES]
