"""JWE for guests: decrypted by an independent library, and byte-exact headers for Trustee's guests."""

import base64
import json

import pytest
from Crypto.Hash import KMAC256
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwe as joserfc_jwe
from joserfc.jwk import ECKey, RSAKey

from keymgmt.guest.errors import KeyRefused
from keymgmt.guest.tee_key import KEY_KINDS, TeeKey
from keymgmt.wrapping.jwe import encrypt, kmac_derived
from keymgmt.wrapping.recipients import TeeKeyInvalid, b64url, parse_tee_key, thumbprint


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def ec_pair(curve, name, size):
    private = ec.generate_private_key(curve)
    point = private.public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": name,
        "alg": "ECDH-ES+A256KW",
        "x": b64url(point.x.to_bytes(size, "big")),
        "y": b64url(point.y.to_bytes(size, "big")),
    }
    return ECKey.import_key(private), jwk


def rsa_pair(bits=2048):
    private = rsa.generate_private_key(65537, bits)
    numbers = private.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "alg": "RSA-OAEP-256",
        "n": b64url(numbers.n.to_bytes(bits // 8, "big")),
        "e": b64url(numbers.e.to_bytes(3, "big")),
    }
    return RSAKey.import_key(private), jwk


PAIRS = {
    "P-256": lambda: ec_pair(ec.SECP256R1(), "P-256", 32),
    "P-521": lambda: ec_pair(ec.SECP521R1(), "P-521", 66),
    "RSA": rsa_pair,
}


@pytest.fixture(scope="module", params=list(PAIRS))
def pair(request):
    return PAIRS[request.param]()


def test_an_independent_library_decrypts(pair):
    private, jwk = pair
    document = json.loads(encrypt(b"secret key bytes", parse_tee_key(jwk)))
    registry = joserfc_jwe.JWERegistry(algorithms=["ECDH-ES+A256KW", "RSA-OAEP-256", "A256GCM"])
    opened = joserfc_jwe.decrypt_json(document, private, registry=registry)
    assert opened.plaintext == b"secret key bytes"


def test_the_header_survives_being_parsed_and_rebuilt_as_trustee_does(pair):
    """kbs-types writes alg, enc, then the other members sorted, without spaces."""
    document = json.loads(encrypt(b"x", parse_tee_key(pair[1])))
    raw = unb64(document["protected"])
    fields = json.loads(raw)
    rest = {name: fields[name] for name in sorted(fields) if name not in ("alg", "enc")}
    rest = {name: dict(sorted(value.items())) if isinstance(value, dict) else value for name, value in rest.items()}
    rebuilt = json.dumps({"alg": fields["alg"], "enc": fields["enc"], **rest}, separators=(",", ":"))
    assert rebuilt.encode() == raw
    assert set(document) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}


def test_each_reply_uses_fresh_keys(pair):
    first, second = (json.loads(encrypt(b"x", parse_tee_key(pair[1]))) for _ in range(2))
    assert first["encrypted_key"] != second["encrypted_key"]
    assert first["iv"] != second["iv"]


def test_thumbprints_are_rfc_7638(pair):
    private, jwk = pair
    assert thumbprint(jwk) == private.thumbprint()


def hybrid_with_a_point_of_small_order():
    jwk = TeeKey("hybrid").public_jwk()
    return jwk | {"pub": b64url(unb64(jwk["pub"])[:1184] + bytes(32))}


def changed(**changes):
    return PAIRS["P-256"]()[1] | changes


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        "key",
        {},
        changed(alg="RSA-OAEP-256"),
        changed(alg="RSA1_5"),
        changed(crv="P-384"),
        changed(crv="secp256k1"),
        changed(x="AAAA"),
        changed(x=b64url(bytes(32)), y=b64url(bytes(32))),
        changed(x=b64url(bytes([255]) * 32)),
        changed(y=b64url(bytes(31))),
        changed(y=1),
        changed(y="A" * 100_000),
        changed(y="=" * 43),
        {**changed(), **{str(i): 1 for i in range(20)}},
        {"kty": "RSA", "alg": "RSA1_5", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "alg": "RSA-OAEP-256", "n": "AQAB", "e": "AQAB"},
        {**rsa_pair()[1], "e": b64url(b"\x02")},
        {**rsa_pair()[1], "e": b64url(b"\x01")},
        {"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": "AAAA"},
        {"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": b64url(b"\xff" * 1184)},  # FIPS 203, 7.2: modulus check
        {"kty": "AKP", "alg": "HPKE-MLKEM768-X25519", "pub": b64url(b"\xff" * 1216)},
        hybrid_with_a_point_of_small_order(),
    ],
)
def test_keys_that_are_not_good_are_refused(jwk):
    with pytest.raises(TeeKeyInvalid):
        parse_tee_key(jwk)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_the_guest_opens_what_was_wrapped_for_it_and_nobody_else_does(kind):
    key, other = TeeKey(kind), TeeKey(kind)
    reply = json.loads(encrypt(b"secret key bytes", parse_tee_key(key.public_jwk())))
    assert key.decrypt(reply) == b"secret key bytes"
    with pytest.raises(KeyRefused):
        other.decrypt(reply)


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("member", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_a_changed_reply_does_not_open(kind, member):
    key = TeeKey(kind)
    reply = json.loads(encrypt(b"secret key bytes", parse_tee_key(key.public_jwk())))
    raw = bytearray(unb64(reply[member])) or bytearray(1)
    raw[len(raw) // 2] ^= 1
    with pytest.raises(KeyRefused):
        key.decrypt({**reply, member: b64url(bytes(raw))})
    with pytest.raises(KeyRefused):
        key.decrypt({name: value for name, value in reply.items() if name != member})


def test_the_hybrid_is_both_secrets_bound_to_its_header():
    """Another suite's header over the same ciphertext, or another half of the key, opens nothing."""
    key = TeeKey("hybrid")
    reply = json.loads(encrypt(b"secret", parse_tee_key(key.public_jwk())))
    header = b64url(json.dumps({"alg": "HPKE-MLKEM768-X25519", "enc": "A256GCM"}).encode())
    with pytest.raises(KeyRefused):
        key.decrypt({**reply, "protected": header})
    mine, theirs = (unb64(pair.public_jwk()["pub"]) for pair in (key, TeeKey("hybrid")))
    for mixed in (mine[:1184] + theirs[1184:], theirs[:1184] + mine[1184:]):
        jwk = key.public_jwk() | {"pub": b64url(mixed)}
        with pytest.raises(KeyRefused):
            key.decrypt(json.loads(encrypt(b"secret", parse_tee_key(jwk))))


def test_kmac_agrees_with_the_published_sample():
    """NIST, KMAC samples for SP 800-185, sample 4's key and data over no customization are not published: the
    generic function is checked by sample 4, the use of it by its inputs."""
    key, data = bytes(range(0x40, 0x60)), bytes(range(4))
    mac = KMAC256.new(key=key, data=data, mac_len=64, custom=b"My Tagged Application").hexdigest().upper()
    assert mac == (
        "20C570C31346F703C9AC36C61C03CB64C3970D0CFC787E9B79599D273A68D2F7"
        "F69D4CC3DE9D104A351689F27CF6F5951F0103F33F4F24871024D9C27773A8DD"
    )
    fixed = bytes([0, 0, 0, 17]) + b"ML-KEM-768+A192KW" + bytes([0, 0, 0, 192])
    assert kmac_derived(bytes(32)) == KMAC256.new(key=bytes(32), data=fixed, mac_len=24).digest()


def test_an_unhashable_curve_is_refused():
    with pytest.raises(TeeKeyInvalid):
        parse_tee_key(changed(crv=["P-256"]))
