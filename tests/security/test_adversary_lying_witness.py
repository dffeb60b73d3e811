"""A witness that lies: its word counts for nothing, it is named, and it cannot stop the log alone."""

import re

import pytest

from keymgmt.transparency.cosignature import cosignatures
from keymgmt.transparency.errors import LogRolledBack, WitnessesUnreachable
from keymgmt.transparency.note import SignatureLine, parse_signature_line, split_note
from keymgmt.transparency.witness_protocol import SIZE_TYPE, AddCheckpoint, Answer
from tests.logs import KEY, NOW, cosigner, identity, open_log, peers, release


class Liar:
    """Answers what it is told to."""

    def __init__(self, answer):
        self._answer = answer

    def add_checkpoint(self, body):
        return self._answer(split_note(AddCheckpoint.parse(body).checkpoint)[0])


def cosigned(text, *, who=1, at=NOW):
    one = identity(who)
    return Answer(200, one.key.cosign(text, at, one.signer).encode())


def forged(text):
    line = parse_signature_line(cosigned(text).body.decode()[:-1])
    return Answer(200, SignatureLine(line.name, line.key_id, line.signature[:-1] + b"\x00").encode().encode())


LIES = {
    "a forged signature": (forged, "does not verify"),
    "another tree": (lambda text: cosigned(text.replace("\n1\n", "\n9\n")), "does not verify"),
    "another log": (lambda text: cosigned(text.replace("kekkai.test", "other.test")), "does not verify"),
    "a time long past": (lambda text: cosigned(text, at=NOW - 4000), "time is -4000 s off"),
    "a time to come": (lambda text: cosigned(text, at=NOW + 4000), r"time is \+4000 s off"),
    "another's key": (lambda text: cosigned(text, who=7), "no cosignature by its key"),
    "no signature": (lambda text: Answer(200, b""), "one to sixteen"),
    "endless conflict": (lambda text: Answer(409, b"0\n", SIZE_TYPE), "status 409"),
    "a larger size": (lambda text: Answer(409, b"999\n", SIZE_TYPE), "claims to have seen 999"),
    "a size that is none": (lambda text: Answer(409, b"-1\n", SIZE_TYPE), "not a number"),
    "a conflict without a size": (lambda text: Answer(409, b"1\n"), "answered with a size"),
    "a refusal": (lambda text: Answer(422, b"no\n"), "status 422"),
    "too many bytes": (lambda text: Answer(200, b"x" * 70_000), "too long"),
}


@pytest.mark.parametrize("lie", LIES)
def test_one_of_three_lies(tmp_path, lie):
    answer, named = LIES[lie]
    known = peers(tmp_path)
    known[0].transport = Liar(answer)
    log = open_log(tmp_path / "log", cosigner(known))
    log.append([release(1)])
    assert set(cosignatures(log.signed_checkpoint, [one.key for one in known])) == {
        "witness.test/w2",
        "witness.test/w3",
    }
    strict = open_log(tmp_path / "strict", cosigner([known[0]], 1))
    with pytest.raises((WitnessesUnreachable, LogRolledBack)) as refused:
        strict.append([release(1)])
    assert known[0].key.name in str(refused.value) + refused.value.problem.where
    assert strict.size == 0
    assert re.search(named, known[0].fault)


def test_a_claimed_size_stops_the_log_only_if_no_quorum_is_left(tmp_path):
    known = peers(tmp_path)
    for one in known[:2]:
        one.transport = Liar(lambda text: Answer(409, b"999\n", SIZE_TYPE))
    with pytest.raises(LogRolledBack, match=r"w1 has seen 999, .*w2 has seen 999"):
        open_log(tmp_path / "log", cosigner(known)).append([release(1)])


def test_a_witness_cannot_sign_for_the_log(tmp_path):
    log = open_log(tmp_path / "log", cosigner(peers(tmp_path)))
    log.append([release(1)])
    text, lines = split_note(log.signed_checkpoint)
    witness_only = f"{text}\n{lines[1]}\n".encode()
    log.files.replace("checkpoint", witness_only)
    with pytest.raises(Exception, match="not ours"):
        open_log(tmp_path / "log")
    assert KEY.name not in lines[1]
