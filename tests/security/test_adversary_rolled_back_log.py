"""A rolled-back database and log, restored together from one old copy: they agree, the witnesses do not."""

import shutil

import pytest

from keymgmt.transparency.errors import LogRolledBack
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.merkle import EMPTY_ROOT
from keymgmt.transparency.monitor import ROLLED_BACK, Monitor, MonitorState
from keymgmt.transparency.sequencer import Published, Sequencer
from tests.logs import KEY, cosigner, open_log, peers, release


class Store:
    """The database's side of the log, which can be copied."""

    def __init__(self, leaves=(), known=(0, EMPTY_ROOT, b"")):
        self.leaves, self.known = list(leaves), known

    def published(self):
        size, root, signed = self.known
        return Published(size, root, len(self.leaves), signed)

    def leaves_from(self, index, limit):
        return self.leaves[index : index + limit]

    def record(self, size, root, signed):
        self.known = (size, root, signed)


@pytest.fixture
def restored(tmp_path):
    """An old copy of log and database; the true ones went on with one more release."""
    store = Store()
    sequencer = Sequencer(open_log(tmp_path / "log", cosigner(peers(tmp_path))), store)
    store.leaves += [release(1), release(2)]
    sequencer.recover()
    shutil.copytree(tmp_path / "log", tmp_path / "old")
    old = Store(store.leaves, store.known)
    watch = Monitor(KEY, MonitorState(), Expectations.parse({}))
    store.leaves.append(release(3))
    sequencer.integrate()
    assert watch.follow(sequencer.log.files) == []
    return tmp_path, old, watch


def test_the_service_refuses_to_start(restored):
    folder, old, _ = restored
    with pytest.raises(LogRolledBack, match="has seen 3"):
        Sequencer(open_log(folder / "old", cosigner(peers(folder))), old).recover()


def test_without_witnesses_the_pair_would_have_passed(restored):
    folder, old, _ = restored
    Sequencer(open_log(folder / "old"), old).recover()  # this is what witnesses are for


def test_a_restart_after_a_roll_back_with_new_leaves_is_refused_too(restored):
    folder, old, _ = restored
    sequencer = Sequencer(open_log(folder / "old", cosigner(peers(folder), 3)), old)
    old.leaves += [release(3, measurement="evil"), release(4)]
    with pytest.raises(Exception, match="0 of 3"):
        sequencer.recover()
    assert sequencer.log.size == 2


def test_a_monitor_sees_it(restored):
    folder, _, watch = restored
    assert [alarm.kind for alarm in watch.follow(open_log(folder / "old").files)] == [ROLLED_BACK]
