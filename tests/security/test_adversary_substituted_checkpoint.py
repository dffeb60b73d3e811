"""A substituted checkpoint: of another key, another log, another size, another root, or with lines moved over."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keymgmt.transparency.cosignature import cosignatures
from keymgmt.transparency.errors import LogCorrupt, NoteInvalid
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.monitor import BROKEN, Monitor, MonitorState
from keymgmt.transparency.note import Checkpoint, VerifierKey, split_note
from keymgmt.transparency.verify import check_proof, prove, verify_log
from tests.logs import KEY, cosigner, identity, open_log, peers, release

OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def by_other(checkpoint):
    key = VerifierKey(KEY.name, OTHER.public_key().public_bytes_raw())
    return Checkpoint(KEY.name, checkpoint.size, checkpoint.root).sign(key, OTHER.sign)


@pytest.fixture
def log(tmp_path):
    made = open_log(tmp_path / "log", cosigner(peers(tmp_path)))
    for number in range(1, 4):
        made.append([release(number)])
    return made


SUBSTITUTES = {
    "another key": lambda log: by_other(log.checkpoint),
    "another size": lambda log: log.signed_checkpoint.replace(b"\n3\n", b"\n2\n"),
    "another log": lambda log: log.signed_checkpoint.replace(b"kekkai.test/log\n3", b"other.test/log\n3"),
    "no signature": lambda log: split_note(log.signed_checkpoint)[0].encode() + b"\n",
    "nothing": lambda log: b"",
}


@pytest.mark.parametrize("substitute", SUBSTITUTES)
def test_nobody_takes_it(log, substitute):
    log.files.replace("checkpoint", SUBSTITUTES[substitute](log))
    with pytest.raises(NoteInvalid):
        verify_log(log.files, KEY)
    with pytest.raises(LogCorrupt):
        open_log(log.files.root)
    watch = Monitor(KEY, MonitorState(), Expectations.parse({}))
    assert [alarm.kind for alarm in watch.follow(log.files)] == [BROKEN]
    assert watch.state.signed == b""


def test_cosignatures_of_another_checkpoint(log):
    before = log.signed_checkpoint
    log.append([release(4)])
    text, lines = split_note(log.signed_checkpoint)
    _, old = split_note(before)
    mixed = "\n".join([text, lines[0], *old[1:]]) + "\n"
    with pytest.raises(NoteInvalid, match="does not verify"):
        cosignatures(mixed.encode(), [identity(n).key for n in (1, 2, 3)])


def test_a_proof_under_another_checkpoint(log):
    proof = prove(log.files, KEY, 1)
    assert check_proof(proof, release(2), KEY).size == 3
    log.append([release(4)])
    head = proof.partition(b"\n\n")[0] + b"\n\n"
    with pytest.raises(NoteInvalid, match="not in the log"):
        check_proof(head + log.signed_checkpoint, release(2), KEY)
