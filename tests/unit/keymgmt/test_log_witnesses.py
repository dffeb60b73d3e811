"""Witnesses: the wire format, what they refuse, the quorum, the grace, crashes between cosigning and publishing."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from crds.errors import InvalidInput, Unavailable
from keymgmt.transparency.cosignature import ED25519, ML_DSA_44, WitnessKey, cosignatures
from keymgmt.transparency.errors import LogRolledBack, NoteInvalid, WitnessesUnreachable
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.merkle import consistency_proof
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.tiles import TileNodes
from keymgmt.transparency.witness import Witness, WitnessIdentity, WitnessState
from keymgmt.transparency.witness_protocol import SIZE_TYPE, AddCheckpoint
from keymgmt.transparency.witnesses import Cosigner
from keymgmt.transparency.witnesses import Witness as Known

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("kekkai.test/log", PRIVATE.public_key().public_bytes_raw())
NOW = 1_780_000_000


def identity(number, kind=ED25519):
    if kind == ED25519:
        private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    else:
        private = MLDSA44PrivateKey.from_seed_bytes(bytes([number]) * 32)
    return WitnessIdentity(
        WitnessKey(f"witness.test/w{number}", kind, private.public_key().public_bytes_raw()), private.sign
    )


class Link:
    """A witness in this process, which can be cut off."""

    def __init__(self, witness):
        self.witness, self.up, self.asked = witness, True, 0

    def add_checkpoint(self, body):
        self.asked += 1
        if not self.up:
            raise Unavailable("cut")
        return self.witness.add_checkpoint(body)


def witnesses(folder, count=3):
    made = []
    for number in range(1, count + 1):
        who = identity(number, ML_DSA_44 if number == 2 else ED25519)
        state = WitnessState(folder / f"w{number}")
        made.append(Known(who.key, Link(Witness([who], [KEY], state, lambda: NOW))))
    return made


def cosigner(known, quorum=2, **options):
    return Cosigner(known, quorum, clock=lambda: NOW, **options)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_keys_and_cosignatures(kind):
    who = identity(1, kind)
    assert WitnessKey.parse(str(who.key)) == who.key
    text = "kekkai.test/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    note = f"{text}\n{who.key.cosign(text, NOW, who.signer)}".encode()
    assert cosignatures(note, [who.key]) == {who.key.name: NOW}
    with pytest.raises(NoteInvalid, match="does not verify"):
        cosignatures(note.replace(b"\n0\n", b"\n1\n"), [who.key])
    assert cosignatures(note, [identity(9).key]) == {}


def test_the_example_of_the_specification():
    key = WitnessKey("witness.example.com/w1", ED25519, b"")
    message = key.message(
        None, "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n", 1679315147
    )
    assert message.decode().split("\n")[:4] == [
        "cosignature/v1",
        "time 1679315147",
        "example.com/behind-the-sofa",
        "20852163",
    ]


def test_a_quorum_cosigns_every_checkpoint(tmp_path):
    known = witnesses(tmp_path)
    log = TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign, (), cosigner(known, 3))
    for size in (1, 300, 301):
        log.append([b"%d" % index for index in range(log.size, size)])
        assert set(cosignatures(log.signed_checkpoint, [one.key for one in known])) == {one.key.name for one in known}
    assert all(one.transport.asked == 3 for one in known)
    again = TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign, (), cosigner(witnesses(tmp_path), 3))
    again.confirm()  # new client: the witnesses say how far they are
    again.append([b"more"])
    assert again.size == 302


def test_no_quorum_publishes_nothing_and_the_same_leaves_may_come_again(tmp_path):
    known = witnesses(tmp_path)
    log = TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign, (), cosigner(known))
    log.append([b"0"])
    known[0].transport.up = known[1].transport.up = False
    before = log.signed_checkpoint
    with pytest.raises(WitnessesUnreachable, match="1 of 2"):
        log.append([b"1", b"2"])
    assert log.size == 1
    assert log.files.read("checkpoint") == before
    # The third witness has cosigned 3 entries: a restart with the same leaves goes on from there.
    known[0].transport.up = True
    again = TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign, (), cosigner(known))
    again.append([b"1", b"2", b"3"])
    assert again.size == 4


def test_grace_is_bounded_and_needs_an_earlier_quorum(tmp_path):
    known, ticks = witnesses(tmp_path), [0.0]
    log = TransparencyLog(
        tmp_path / "log", KEY, PRIVATE.sign, (), cosigner(known, grace_seconds=60, ticks=lambda: ticks[0])
    )
    for one in known:
        one.transport.up = False
    with pytest.raises(WitnessesUnreachable):
        log.append([b"0"])
    for one in known:
        one.transport.up = True
    log.append([b"0"])
    for one in known:
        one.transport.up = False
    ticks[0] = 59.0
    log.append([b"1"])
    ticks[0] = 61.0
    with pytest.raises(WitnessesUnreachable):
        log.append([b"2"])


def test_a_quorum_is_a_majority(tmp_path):
    for quorum in (1, 4):
        with pytest.raises(InvalidInput, match="majority"):
            cosigner(witnesses(tmp_path), quorum)
    with pytest.raises(InvalidInput, match="share"):
        cosigner(witnesses(tmp_path, 1) * 2, 2)


def test_what_a_witness_answers(tmp_path):
    log = TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign)
    notes = [log.files.read("checkpoint")]
    for _ in range(5):
        log.append([b"x"])
        notes.append(log.signed_checkpoint)
    proof = tuple(consistency_proof(2, 5, TileNodes(log.files, 5)))
    witness = witnesses(tmp_path, 1)[0].transport.witness

    def ask(old, proof, note):
        return witness.add_checkpoint(AddCheckpoint(old, proof, note).encode())

    assert ask(0, (), notes[2]).status == 200
    stale = ask(0, (), notes[5])
    assert (stale.status, stale.body, stale.content_type) == (409, b"2\n", SIZE_TYPE)
    assert ask(2, (), notes[5]).status == 422
    assert ask(2, (bytes(32),) * len(proof), notes[5]).status == 422
    assert ask(6, (), notes[5]).status == 400
    assert witness.add_checkpoint(b"old 02\n\n" + notes[5]).status == 400
    assert ask(2, proof, notes[5].replace(b"kekkai.test/log\n5", b"other.test/log\n5")).status == 404
    assert ask(2, proof, notes[5].replace(b"\n5\n", b"\n6\n")).status == 403
    assert ask(2, proof, notes[5]).status == 200
    assert ask(2, proof, notes[5]).status == 409
    assert ask(5, (), notes[5]).status == 200  # the same tree again, with a newer time
    kept = witnesses(tmp_path, 1)[0].transport.witness  # a restart
    assert kept.add_checkpoint(AddCheckpoint(0, (), notes[5]).encode()).body == b"5\n"
    assert set(cosignatures(kept.latest(KEY.name), [identity(1).key])) == {"witness.test/w1"}


def test_a_shorter_log_finds_no_quorum(tmp_path):
    log = TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign, (), cosigner(witnesses(tmp_path)))
    log.append([b"0", b"1", b"2"])
    old = TransparencyLog(tmp_path / "old", KEY, PRIVATE.sign)
    old.append([b"0", b"1"])
    turned_back = TransparencyLog(tmp_path / "old", KEY, PRIVATE.sign, (), cosigner(witnesses(tmp_path)))
    with pytest.raises(LogRolledBack, match="has seen 3"):
        turned_back.confirm()
