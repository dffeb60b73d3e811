"""Custodians, quorum and the release rule: what counts, what does not, and why a denial happened."""

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from crds.errors import InvalidInput, KekkaiError
from keymgmt import strict_json
from keymgmt.policy import rule as rules
from keymgmt.policy.custodians import CustodianSet, parse_custodian_set, raw_digest, require_quorum
from keymgmt.policy.documents import parse_policy
from keymgmt.policy.dsse import Envelope, algorithm_of, pae
from keymgmt.policy.errors import EnvelopeInvalid, PolicyInvalid, QuorumNotMet
from keymgmt.policy.payload_types import POLICY_TYPE

MEASUREMENT = "ab" * 48
RULE = f'claims.snp.measurement == "{MEASUREMENT}" && claims.init_data == "cd" && !claims.snp.debug'


def public_der(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def custodian(keyid, key):
    return {
        "keyid": keyid,
        "algorithm": algorithm_of(key),
        "publicKey": base64.b64encode(public_der(key)).decode(),
    }


@pytest.fixture(scope="module")
def keys():
    return {
        "ed": ed25519.Ed25519PrivateKey.generate(),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "pq": mldsa.MLDSA65PrivateKey.generate(),
    }


def roster(keys, threshold):
    custodians = [custodian(keyid, key) for keyid, key in keys.items()]
    return parse_custodian_set({"tenant": "tenant-a", "threshold": threshold, "custodians": custodians})


def policy(**changes):
    document = {
        "apiVersion": "kekkai.dev/release-policy/v1",
        "tenant": "tenant-a",
        "keys": ["team-a/dataset"],
        "rule": RULE,
        "maxReleases": 4,
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2027-01-01T00:00:00+09:00",
        "jurisdiction": "JP",
        "replaces": None,
    } | changes
    return Envelope(POLICY_TYPE, json.dumps(document).encode(), ())


def test_pae_is_the_specification_example():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("signers", [["ed"], ["ec"], ["pq"]])
def test_each_algorithm_counts(keys, signers):
    envelope = policy()
    for name in signers:
        envelope = envelope.with_signature(name, keys[name])
    again = Envelope.parse(json.loads(json.dumps(envelope.as_dict())), POLICY_TYPE)
    assert require_quorum(again, roster(keys, 1)) == signers


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_m_of_n(keys, threshold):
    envelope = policy()
    for number, (name, key) in enumerate(keys.items(), start=1):
        envelope = envelope.with_signature(name, key)
        if number >= threshold:
            assert len(require_quorum(envelope, roster(keys, threshold))) == number
        else:
            with pytest.raises(QuorumNotMet, match=f"{number} of the {threshold}"):
                require_quorum(envelope, roster(keys, threshold))


def test_one_custodian_never_counts_twice(keys):
    envelope = policy().with_signature("ed", keys["ed"])
    doubled = Envelope(envelope.payload_type, envelope.payload, envelope.signatures * 5)
    with pytest.raises(QuorumNotMet):
        require_quorum(doubled, roster(keys, 2))
    # The same person's signature under a second name is by the wrong key for that name.
    renamed = Envelope(
        envelope.payload_type, envelope.payload, (*envelope.signatures, ("ec", envelope.signatures[0][1]))
    )
    with pytest.raises(QuorumNotMet):
        require_quorum(renamed, roster(keys, 2))


def test_strangers_and_other_documents_do_not_count(keys):
    stranger = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(QuorumNotMet):
        require_quorum(policy().with_signature("ed", stranger), roster(keys, 1))
    signed = policy().with_signature("ed", keys["ed"])
    moved = Envelope(signed.payload_type, policy(maxReleases=999).payload, signed.signatures)
    with pytest.raises(QuorumNotMet):
        require_quorum(moved, roster(keys, 1))
    retyped = Envelope("application/other", signed.payload, signed.signatures)
    with pytest.raises(QuorumNotMet):
        require_quorum(retyped, roster(keys, 1))


def test_rosters_that_would_weaken_the_quorum_are_refused(keys):
    one = custodian("ed", keys["ed"])
    for custodians, threshold in (
        ([one, one], 1),
        ([one, {**one, "keyid": "again"}], 2),
        ([one], 2),
        ([one], 0),
        ([], 1),
        ([{**one, "algorithm": "ml-dsa-65"}], 1),
        ([{**one, "publicKey": "AAAA"}], 1),
        ([{**one, "publicKey": one["publicKey"] + "===="}], 1),
        ([{**one, "extra": 1}], 1),
    ):
        with pytest.raises(InvalidInput):
            parse_custodian_set({"tenant": "t", "threshold": threshold, "custodians": custodians})


def test_a_compressed_point_is_no_second_form_of_one_key(keys):
    import cryptography.hazmat.primitives.serialization as ser

    der = keys["ec"].public_key().public_bytes(ser.Encoding.X962, ser.PublicFormat.CompressedPoint)
    spki = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + der
    entry = {"keyid": "x", "algorithm": "ecdsa-p256", "publicKey": base64.b64encode(spki).decode()}
    with pytest.raises(InvalidInput, match="canonical"):
        parse_custodian_set({"tenant": "t", "threshold": 1, "custodians": [entry]})


def test_the_digest_does_not_depend_on_the_order_of_custodians(keys):
    custodians = [custodian(keyid, key) for keyid, key in keys.items()]
    digests = {
        CustodianSet.model_validate({"tenant": "t", "threshold": 2, "custodians": order}).digest
        for order in (custodians, custodians[::-1])
    }
    assert len(digests) == 1
    assert len(raw_digest(digests.pop())) == 32


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"tenant": "Tenant A"}, "tenant"),
        ({"keys": []}, "keys"),
        ({"keys": ["team-a/dataset", "team-a/dataset"]}, "policy"),
        ({"keys": ["dataset"]}, "keys"),
        ({"maxReleases": 0}, "maxReleases"),
        ({"maxReleases": "4"}, "maxReleases"),
        ({"maxReleases": True}, "maxReleases"),
        ({"notAfter": "2025-01-01T00:00:00Z"}, "policy"),
        ({"notAfter": "tomorrow"}, "notAfter"),
        ({"notBefore": "2026-13-01T00:00:00Z"}, "notBefore"),
        ({"replaces": "sha256:00"}, "replaces"),
        ({"jurisdiction": "Japan"}, "jurisdiction"),
        ({"surprise": 1}, "surprise"),
        ({"rule": ""}, "rule"),
    ],
)
def test_malformed_policies_name_their_field(changes, where):
    with pytest.raises(PolicyInvalid) as refused:
        parse_policy(policy(**changes))
    assert where in refused.value.problem.where


@pytest.mark.parametrize(
    "rule",
    [
        "true",
        "claims.snp.vmpl == 0",
        f'claims.snp.measurement == "{MEASUREMENT}"',
        'claims.snp.measurement != "" && claims.init_data != ""',
        'claims.snp.measurement == "x" && claims.init_data == "y" || true',
        '"claims.snp.measurement claims.init_data" != ""',
        "true // claims.snp.measurement claims.init_data",
        "claims.snp.measurement ==",
        "(" * 40 + "true" + ")" * 40,
        RULE + " && [1].all(x, [1].all(y, true))",
        RULE + " && " + "true && " * 1000 + "true",
    ],
)
def test_rules_that_are_too_weak_or_too_costly_are_refused(rule):
    with pytest.raises(PolicyInvalid):
        parse_policy(policy(rule=rule))


def claims(**snp):
    base = {"measurement": MEASUREMENT, "debug": False, "vmpl": 0}
    return {
        "claims": {"snp": base | snp, "init_data": "cd", "root": "amd"},
        "request": {"namespace": "team-a", "name": "dataset"},
        "now": datetime(2026, 11, 24, tzinfo=UTC),
    }


def test_the_rule_allows_only_what_it_says():
    assert rules.evaluate(RULE, claims()).allowed
    for change in ({"measurement": "00"}, {"debug": True}, {"debug": None}, {"debug": "false"}):
        assert not rules.evaluate(RULE, claims(**change)).allowed


def test_a_denial_names_the_unmet_condition_and_what_was_seen():
    verdict = rules.evaluate(RULE, claims(measurement="00"))
    assert len(verdict.unmet) == 1
    assert "claims.snp.measurement ==" in verdict.unmet[0]
    assert "claims.snp.measurement is '00'" in verdict.unmet[0]


def test_a_missing_claim_denies():
    variables = claims()
    del variables["claims"]["snp"]["debug"]
    verdict = rules.evaluate(RULE, variables)
    assert not verdict.allowed
    assert "claims.snp.debug is absent" in verdict.unmet[0]
    assert not rules.evaluate(RULE, {}).allowed


@pytest.mark.parametrize("value", ['"true"', "1", "claims", "null", "[true]", "1 / 0 == 1", "dyn(1)"])
def test_only_the_value_true_allows(value):
    rule = f'(claims.snp.measurement == "{MEASUREMENT}" && claims.init_data == "cd") ? {value} : false'
    assert not rules.evaluate(rule, claims()).allowed


def test_time_and_request_are_visible():
    rule = RULE + ' && now < timestamp("2027-01-01T00:00:00Z") && request.namespace == "team-a"'
    assert rules.evaluate(rule, claims()).allowed


def test_conjuncts_respect_strings_and_brackets():
    assert rules.conjuncts('a == "x && y" && (b && c) && [1, 2] == d') == ['a == "x && y"', "(b && c)", "[1, 2] == d"]
    assert rules.conjuncts("a && b || c") == ["a && b || c"]
    assert rules.conjuncts(r"a == 'it\'s && ' && b") == [r"a == 'it\'s && '", "b"]


@given(st.text(max_size=200))
def test_arbitrary_rules_never_allow_and_never_raise_otherwise(text):
    assert not rules.evaluate(text, claims()).allowed


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"payloadType": POLICY_TYPE},
        {"payloadType": POLICY_TYPE, "payload": "!!", "signatures": [{"keyid": "a", "sig": "AA=="}]},
        {"payloadType": POLICY_TYPE, "payload": "AA==", "signatures": []},
        {"payloadType": POLICY_TYPE, "payload": "AA==", "signatures": [{"keyid": 1, "sig": "AA=="}]},
        {"payloadType": POLICY_TYPE, "payload": "AA==", "signatures": [{"keyid": "a", "sig": "AA=="}] * 99},
        {"payloadType": "other", "payload": "AA==", "signatures": [{"keyid": "a", "sig": "AA=="}]},
    ],
)
def test_malformed_envelopes(document):
    with pytest.raises(EnvelopeInvalid):
        Envelope.parse(document, POLICY_TYPE)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b"\xff",
        b"[1]",
        b"",
        b'{"' + b'\\"' * 10 + b"[" * 40,
    ],
)
def test_json_that_two_parsers_could_read_differently_is_refused(data):
    with pytest.raises(KekkaiError):
        strict_json.parse_object(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=3), c, max_size=3),
        max_leaves=8,
    )
)
def test_json_round_trips(document):
    assert strict_json.parse(strict_json.canonical({"a": document})) == {"a": document}
