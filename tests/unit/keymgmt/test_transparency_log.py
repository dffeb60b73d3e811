"""The log on disk: growth in any batches, crashes between its writes, tampering, roll-backs."""

import random
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.errors import Unavailable
from keymgmt.transparency import entries as kinds
from keymgmt.transparency.entries import decode_entry, encode_entry
from keymgmt.transparency.errors import LogCorrupt, LogRolledBack, NoteInvalid
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.merkle import CompactRange, leaf_hash
from keymgmt.transparency.note import Checkpoint, VerifierKey
from keymgmt.transparency.sequencer import Published, Sequencer
from keymgmt.transparency.tiles import TileFiles, decode_bundle, is_tile_path, tile_path
from keymgmt.transparency.verify import check_proof, iterate, prove, verify_log

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("kekkai.test/log", PRIVATE.public_key().public_bytes_raw())
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def entry(index):
    return encode_entry(kinds.DENIAL, NOW, {"reason": "Test", "n": index})


def open_log(folder, signer=PRIVATE.sign, anchors=()):
    return TransparencyLog(folder, KEY, signer, anchors)


class Store:
    """The store's side in memory, for tests of the sequencer alone."""

    def __init__(self):
        self.leaves, self.size, self.root = [], 0, CompactRange().root()

    def published(self):
        return Published(self.size, self.root, len(self.leaves))

    def leaves_from(self, index, limit):
        return self.leaves[index : index + limit]

    def record(self, size, root, signed):
        self.size, self.root = size, root


def test_paths():
    assert tile_path(0, 0) == "tile/0/000"
    assert tile_path(1, 1234067, 5) == "tile/1/x001/x234/067.p/5"
    assert tile_path("entries", 1000) == "tile/entries/x001/000"
    for path in ("0/000", "entries/x001/000.p/255", "63/x999/999"):
        assert is_tile_path(path)
    for path in ("64/000", "0/0", "0/../000", "0/000.p/256", "0/000.p/0", "00/000", "entries/x001", "0/000/", ""):
        assert not is_tile_path(path)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_any_batches_give_the_naive_root(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("log")
    log, tree, written = open_log(folder), CompactRange(), []
    for batch in batches:
        new = [entry(len(written) + i) for i in range(batch)]
        log.append(new)
        written += new
        tree.extend(leaf_hash(item) for item in new)
        assert log.checkpoint.root == tree.root()
        log = open_log(folder) if batch % 2 else log
    assert list(iterate(TileFiles(folder), len(written))) == written
    report = verify_log(TileFiles(folder), KEY)
    assert report.ok
    assert report.size == len(written)
    for index in {0, len(written) // 2, len(written) - 1}:
        proof = prove(TileFiles(folder), KEY, index)
        assert check_proof(proof, written[index], KEY).size == len(written)
        with pytest.raises(NoteInvalid):
            check_proof(proof, b"another entry", KEY)


def test_two_levels_of_tiles(tmp_path):
    log = open_log(tmp_path)
    total = 256 * 256 + 3
    leaves = [b"%d" % i for i in range(total)]
    log.append(leaves)
    tree = CompactRange()
    tree.extend(leaf_hash(leaf) for leaf in leaves)
    assert log.checkpoint.root == tree.root() == open_log(tmp_path).checkpoint.root
    assert (tmp_path / "tile/2/000.p/1").is_file()
    assert (tmp_path / "tile/1/000").is_file()
    assert not (tmp_path / "tile/1/000.p").exists()


class Crash(Exception):
    pass


def test_a_crash_between_any_two_writes_loses_and_changes_nothing(tmp_path, monkeypatch):
    """Stop the writer after each of its file writes in turn; a restart completes the same log."""
    rng = random.Random(5)
    real = TileFiles._replace
    for stop in range(1, 14):
        folder, store = tmp_path / str(stop), Store()
        calls = {"left": stop}

        def crashing(self, target, content, touched, calls=calls):
            if calls["left"] == 0:
                raise Crash
            calls["left"] -= 1
            real(self, target, content, touched)

        monkeypatch.setattr(TileFiles, "_replace", crashing)
        try:
            sequencer = Sequencer(open_log(folder), store)
            sequencer.recover()
            while True:
                store.leaves += [entry(len(store.leaves) + i) for i in range(rng.randint(1, 300))]
                sequencer.integrate()
        except Crash:
            pass
        monkeypatch.setattr(TileFiles, "_replace", real)
        store.leaves += [entry(len(store.leaves))]
        again = Sequencer(open_log(folder), store)
        again.recover()
        assert again.log.size == len(store.leaves) == store.size
        assert list(iterate(TileFiles(folder), again.log.size)) == store.leaves
        assert verify_log(TileFiles(folder), KEY).ok


def test_a_crash_after_the_checkpoint_and_before_its_record(tmp_path):
    store = Store()
    store.leaves = [entry(i) for i in range(700)]
    log = open_log(tmp_path)
    log.append(store.leaves)  # published, and the store does not know
    Sequencer(open_log(tmp_path), store).recover()
    assert store.size == 700


def test_when_the_signer_is_gone_nothing_is_published(tmp_path):
    def gone(_):
        raise Unavailable("no HSM")

    log = open_log(tmp_path, signer=gone)
    with pytest.raises(Unavailable):
        log.append([entry(0)])
    assert log.size == 0
    assert not (tmp_path / "checkpoint").exists()
    assert open_log(tmp_path).append([entry(0)]).size == 1


def test_a_log_behind_the_store_is_refused(tmp_path):
    store = Store()
    store.leaves = [entry(i) for i in range(10)]
    Sequencer(open_log(tmp_path / "new"), store).recover()
    with pytest.raises(LogRolledBack, match="log has 0"):
        Sequencer(open_log(tmp_path / "old"), store).recover()


def test_a_store_behind_the_log_is_refused(tmp_path):
    store = Store()
    store.leaves = [entry(i) for i in range(10)]
    Sequencer(open_log(tmp_path), store).recover()
    old = Store()
    old.leaves = store.leaves[:4]
    with pytest.raises(LogRolledBack, match="store has given out 4"):
        Sequencer(open_log(tmp_path), old).recover()


def test_a_store_with_another_history_is_refused(tmp_path):
    store = Store()
    store.leaves = [entry(i) for i in range(10)]
    Sequencer(open_log(tmp_path), store).recover()
    store.root = bytes(32)
    with pytest.raises(LogCorrupt):
        Sequencer(open_log(tmp_path), store).recover()
    other = Store()
    other.leaves = [entry(100 + i) for i in range(10)]
    with pytest.raises(LogCorrupt, match="differ"):
        Sequencer(open_log(tmp_path), other).recover()


def test_an_anchor_elsewhere_catches_a_whole_data_folder_rolled_back(tmp_path):
    import shutil

    anchor = tmp_path / "elsewhere" / "anchor"
    log = open_log(tmp_path / "log", anchors=[anchor])
    log.append([entry(0)])
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    log.append([entry(1)])
    with pytest.raises(LogRolledBack, match="anchor saw 2"):
        open_log(tmp_path / "backup", anchors=[anchor])
    open_log(tmp_path / "log", anchors=[anchor])


def test_changed_files_are_noticed(tmp_path):
    log = open_log(tmp_path)
    log.append([entry(i) for i in range(300)])
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file()):
        original = path.read_bytes()
        path.write_bytes(bytes([original[0] ^ 1]) + original[1:])
        with pytest.raises((LogCorrupt, NoteInvalid)):
            verify_log(TileFiles(tmp_path), KEY)
        path.write_bytes(original)
    assert verify_log(TileFiles(tmp_path), KEY).ok


def test_an_earlier_checkpoint_must_be_extended(tmp_path):
    log = open_log(tmp_path)
    first = log.append([entry(0), entry(1)])
    log.append([entry(2)])
    assert verify_log(TileFiles(tmp_path), KEY, seen=first).ok
    with pytest.raises(LogCorrupt, match="rewrote"):
        verify_log(TileFiles(tmp_path), KEY, seen=Checkpoint(KEY.name, 2, bytes(32)))
    with pytest.raises(LogRolledBack):
        verify_log(TileFiles(tmp_path), KEY, seen=Checkpoint(KEY.name, 9, bytes(32)))


def release(count, **changes):
    fields = {"key": "ns/k", "tenant": "t", "policy": "sha256:p", "measurement": "m", "count": count}
    return encode_entry(kinds.RELEASE, NOW, fields | changes)


def life(*tail, limit=2):
    return [
        encode_entry(kinds.POLICY_ACCEPTED, NOW, {"digest": "sha256:p", "maxReleases": limit, "replaces": None}),
        encode_entry(kinds.KEY_CREATED, NOW, {"key": "ns/k", "tenant": "t", "state": "Active", "policy": "sha256:p"}),
        *tail,
    ]


def test_the_auditor_counts_releases(tmp_path):
    open_log(tmp_path).append(life(release(1), release(2)))
    report = verify_log(TileFiles(tmp_path), KEY)
    assert report.ok
    assert report.keys["ns/k"].releases == 2
    assert report.keys["ns/k"].by_measurement == {"m": 2}


@pytest.mark.parametrize(
    ("tail", "fault"),
    [
        ([release(1), release(2), release(3)], "exceeds"),
        ([release(1, policy="sha256:q")], "never accepted"),
        ([release(7)], "wrong run count"),
        ([encode_entry(kinds.KEY_STATE, NOW, {"key": "ns/k", "state": "Suspended"}), release(1)], "Suspended"),
        ([encode_entry(kinds.KEY_POLICY, NOW, {"key": "ns/k", "policy": "sha256:q"})], "never accepted"),
    ],
)
def test_broken_promises_are_faults(tmp_path, tail, fault):
    open_log(tmp_path).append(life(*tail))
    report = verify_log(TileFiles(tmp_path), KEY)
    assert not report.ok
    assert fault in " ".join(report.faults)


@given(st.binary(max_size=600))
def test_bundles_of_arbitrary_bytes(data):
    try:
        entries = decode_bundle(data)
    except LogCorrupt:
        return
    assert b"".join(len(item).to_bytes(2, "big") + item for item in entries) == data


@given(st.binary(max_size=200))
def test_entries_of_arbitrary_bytes_are_refused(data):
    with pytest.raises(LogCorrupt):
        decode_entry(data)


def test_an_entry_that_is_not_canonical_is_refused():
    good = entry(1)
    assert decode_entry(good)["n"] == 1
    with pytest.raises(LogCorrupt, match="canonical"):
        decode_entry(good + b" ")
