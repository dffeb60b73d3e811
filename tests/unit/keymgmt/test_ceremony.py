"""The key ceremony: M of N shares give the PIN, fewer or others give nothing."""

import itertools
from datetime import UTC, datetime

import pytest

from crds.errors import InvalidInput
from keymgmt.hsm import ceremony
from keymgmt.hsm.ceremony import ShareInvalid

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HOLDERS = ["alice", "bob", "carol", "dave"]


@pytest.fixture(scope="module")
def held():
    pin = ceremony.make_pin()
    shares = ceremony.split(pin, 3, HOLDERS)
    return pin, shares, ceremony.transcript(shares, pin, {"token": "test"}, NOW)


def test_any_quorum_gives_the_pin(held):
    pin, shares, transcript = held
    for count in (3, 4):
        for some in itertools.combinations(shares, count):
            assert ceremony.combine(some, transcript) == pin


def test_fewer_give_nothing(held):
    _, shares, transcript = held
    for some in itertools.combinations(shares, 2):
        with pytest.raises(ShareInvalid, match="3 shares are needed"):
            ceremony.combine(some, transcript)
    with pytest.raises(ShareInvalid, match="twice"):
        ceremony.combine([shares[0]] * 3, transcript)


def test_shares_of_another_ceremony_are_named(held):
    _, shares, transcript = held
    others = ceremony.split(ceremony.make_pin(), 3, HOLDERS)
    with pytest.raises(ShareInvalid, match="carol"):
        ceremony.combine([*shares[:2], others[2]], transcript)


def test_the_transcript_gives_no_secret_away(held):
    pin, shares, transcript = held
    text = str(transcript)
    assert pin not in text
    assert not any(share.value.hex() in text for share in shares)
    assert [one["holder"] for one in transcript["shares"]] == HOLDERS


def test_a_share_file_opens_with_its_passphrase_alone(held):
    _, shares, _ = held
    document = ceremony.lock(shares[0], b"correct horse battery")
    assert shares[0].value.hex() not in str(document)
    assert ceremony.unlock(document, b"correct horse battery") == shares[0]
    with pytest.raises(ShareInvalid, match="alice"):
        ceremony.unlock(document, b"incorrect horse battery")


@pytest.mark.parametrize("change", [{"index": 2}, {"holder": "bob"}, {"threshold": 2}, {"ceremony": "00" * 8}])
def test_what_a_share_says_of_itself_cannot_be_changed(held, change):
    document = ceremony.lock(held[1][0], b"correct horse battery")
    with pytest.raises(ShareInvalid):
        ceremony.unlock(document | change, b"correct horse battery")


@pytest.mark.parametrize("junk", [{}, {"apiVersion": "x"}, {"apiVersion": ceremony.SHARE_VERSION, "index": "a"}])
def test_other_documents_are_no_shares(junk):
    with pytest.raises(ShareInvalid):
        ceremony.unlock(junk, b"correct horse battery")


@pytest.mark.parametrize(("threshold", "holders"), [(1, HOLDERS), (5, HOLDERS), (2, ["a", "a"]), (2, ["a", ""])])
def test_a_quorum_needs_two_and_different_names(threshold, holders):
    with pytest.raises(InvalidInput):
        ceremony.split(ceremony.make_pin(), threshold, holders)


def test_a_short_passphrase_is_refused(held):
    with pytest.raises(InvalidInput, match="at least 12"):
        ceremony.lock(held[1][0], b"short")
