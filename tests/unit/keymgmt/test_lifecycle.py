"""States, challenges, tokens, the denial limiter and the journal, each on its own."""

import base64
import threading
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from crds.errors import Conflict, Unavailable
from keymgmt.broker.challenge import Challenger, ChallengeRefused
from keymgmt.broker.tokens import TokenInvalid, TokenKey, tee_key_of
from keymgmt.lifecycle.database import StoreIncompatible, open_database
from keymgmt.lifecycle.denials import DenialLimiter
from keymgmt.lifecycle.folder_lock import AlreadyRunning, take
from keymgmt.lifecycle.journal import Journal, StoreUnavailable
from keymgmt.lifecycle.log_lease import LogLease
from keymgmt.lifecycle.publication import LogPublication
from keymgmt.lifecycle.releases import open_session
from keymgmt.lifecycle.schema import log_leaves, meta, sessions
from keymgmt.lifecycle.states import IllegalTransition, KeyState, require_transition, way_to_destroyed
from keymgmt.transparency import entries
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.note import VerifierKey
from keymgmt.wrapping.recipients import b64url

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LOG_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
LOG_KEY = VerifierKey("kekkai.test/log", LOG_PRIVATE.public_key().public_bytes_raw())


@given(st.lists(st.sampled_from(KeyState), max_size=8))
def test_no_walk_leads_back_from_destroyed_or_makes_a_compromised_key_active(walk):
    state, passed = KeyState.PRE_ACTIVATION, [KeyState.PRE_ACTIVATION]
    for wanted in walk:
        try:
            require_transition(state, wanted, "key")
        except IllegalTransition:
            continue
        state = wanted
        passed.append(state)
    if KeyState.DESTROYED in passed:
        assert passed[-1] is KeyState.DESTROYED
    for bad in (KeyState.COMPROMISED, KeyState.DEACTIVATED):
        if bad in passed:
            assert KeyState.ACTIVE not in passed[passed.index(bad) :]


@pytest.mark.parametrize("state", list(KeyState))
def test_every_state_has_a_legal_way_to_destroyed(state):
    present = state
    for step in way_to_destroyed(state):
        require_transition(present, step, "key")
        present = step
    assert present is KeyState.DESTROYED


def test_challenges_are_of_one_session_one_service_and_five_minutes():
    challenger = Challenger(b"s" * 32, 300)
    challenge = challenger.issue("snp", 1000)
    assert challenger.check(challenge.session_id, challenge.nonce, 1299) == ("snp", 1300)
    with pytest.raises(ChallengeRefused) as late:
        challenger.check(challenge.session_id, challenge.nonce, 1300)
    assert late.value.problem.reason == "NonceExpired"
    other = challenger.issue("snp", 1000)
    for session, nonce, service in (
        (other.session_id, challenge.nonce, challenger),
        (challenge.session_id, other.nonce, challenger),
        (challenge.session_id, challenge.nonce, Challenger(b"t" * 32, 300)),
        (challenge.session_id, None, challenger),
        (challenge.session_id, "A" * 44, challenger),
        (challenge.session_id, "!" * 44, challenger),
    ):
        with pytest.raises(ChallengeRefused) as refused:
            service.check(session, nonce, 1001)
        assert refused.value.problem.reason == "NonceMismatch"


@given(st.integers(0, 31), st.integers(1, 255))
def test_no_bit_of_a_nonce_can_change(position, flip):
    challenger = Challenger(b"s" * 32, 300)
    challenge = challenger.issue("snp", 1000)
    raw = bytearray(base64.b64decode(challenge.nonce))
    raw[position] ^= flip
    with pytest.raises(ChallengeRefused):
        challenger.check(challenge.session_id, base64.b64encode(raw).decode(), 1001)


class Signer:
    def __init__(self):
        self.private = ec.generate_private_key(ec.SECP256R1())
        point = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.key = TokenKey(point, "issuer")

    def token(self, now=1000):
        submod = {"snp": {"host_data": "aa", "report_data": "bb"}}
        signing_input = self.key.unsigned(submod, "evidence", {"kty": "EC"}, "nonce", "session", now)
        r, s = decode_dss_signature(self.private.sign(signing_input, ec.ECDSA(hashes.SHA256())))
        return f"{signing_input.decode()}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_tokens_hold_for_five_minutes_and_for_their_issuer():
    signer = Signer()
    claims = signer.key.verify(signer.token(), 1299)
    assert tee_key_of(claims) == {"kty": "EC"}
    for now in (999, 1300):
        with pytest.raises(TokenInvalid) as refused:
            signer.key.verify(signer.token(), now)
        assert refused.value.problem.reason == "TokenExpired"
    with pytest.raises(TokenInvalid):
        Signer().key.verify(signer.token(), 1001)


def test_tokens_of_another_algorithm_are_refused():
    signer = Signer()
    _, payload, _ = signer.token().split(".")
    for header in ('{"alg":"none"}', '{"alg":"HS256","typ":"JWT"}'):
        with pytest.raises(TokenInvalid):
            signer.key.verify(f"{b64url(header.encode())}.{payload}.", 1001)


def test_the_limiter_bounds_entries_and_loses_no_count():
    clock = [0.0]
    limiter = DenialLimiter(4.0, 40, lambda: clock[0])
    admitted = sum(limiter.admit("RuleNotMet", "a/b") for _ in range(1000))
    assert admitted == 10  # one subject gets a quarter
    assert limiter.admit("RuleNotMet", "c/d")  # and does not hide another
    assert limiter.drain() == {"RuleNotMet": 990}
    assert limiter.drain() == {}
    clock[0] += 1.0
    assert sum(limiter.admit("RuleNotMet", "a/b") for _ in range(10)) == 1
    many = sum(limiter.admit("X", str(i)) for i in range(10_000))
    assert many <= 40


@pytest.fixture
def journal(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    log = TransparencyLog(tmp_path / "log", LOG_KEY, LOG_PRIVATE.sign)
    publication = LogPublication(engine, lambda: log, LogLease(engine, "one", 60))
    publication.start()
    made = Journal(engine, publication, lambda: NOW)
    made.log, made.engine = log, engine
    yield made
    made.close()
    publication.close()
    engine.dispose()


def leaf(number):
    return lambda change: change.log(entries.DENIAL, {"n": number})


def test_changes_are_published_before_they_are_answered(journal):
    journal.start()
    for number in range(20):
        index = journal.submit(leaf(number)).result()
        assert index == number
        assert journal.log.size > index


def test_a_batch_is_one_transaction_and_a_refused_change_undoes_only_itself(journal):
    def refuse(change):
        change.log(entries.DENIAL, {"n": -1})
        change.connection.execute(insert(meta).values(name="half", value=b"done"))
        raise Conflict("no")

    futures = [journal.submit(act) for act in (leaf(0), refuse, leaf(1), refuse, leaf(2))]
    journal.start()
    assert [futures[i].result() for i in (0, 2, 4)] == [0, 1, 2]
    for i in (1, 3):
        with pytest.raises(Conflict):
            futures[i].result()
    assert journal.batches == 1
    assert journal.log.size == 3
    with journal.engine.connect() as connection:
        assert connection.execute(select(meta).where(meta.c.name == "half")).first() is None
        assert len(connection.execute(select(log_leaves)).all()) == 3


def test_when_the_checkpoint_cannot_be_signed_nobody_is_answered_yes(journal):
    def gone(_):
        raise Unavailable("no HSM")

    journal.log._signer = gone
    journal.start()
    with pytest.raises(StoreUnavailable):
        journal.submit(leaf(0)).result()
    assert not journal.healthy
    journal.log._signer = LOG_PRIVATE.sign
    # The committed leaf is published with the next change, whatever that is.
    journal.submit(lambda change: None).result()
    assert journal.healthy
    assert journal.log.size == 1


def test_a_session_is_opened_once_by_however_many(journal):
    journal.start()
    won = []

    def answer(number):
        won.append(journal.submit(lambda change: open_session(change, "x" * 64, 2_000_000_000, str(number))).result())

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 15 + [True]
    with journal.engine.connect() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1


def test_a_store_of_another_version_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(meta.update().where(meta.c.name == "schema").values(value=b"99"))
    engine.dispose()
    with pytest.raises(StoreIncompatible):
        open_database(url)


def test_one_service_a_folder(tmp_path):
    with take(tmp_path), pytest.raises(AlreadyRunning):
        take(tmp_path)
    take(tmp_path).close()
