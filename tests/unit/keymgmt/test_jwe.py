"""JWE for guests: decrypted by an independent library, and byte-exact headers for Trustee's guests."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwe as joserfc_jwe
from joserfc.jwk import ECKey, RSAKey

from keymgmt.wrapping.jwe import TeeKeyInvalid, b64url, encrypt, parse_tee_key, thumbprint


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
    ],
)
def test_keys_that_are_not_good_are_refused(jwk):
    with pytest.raises(TeeKeyInvalid):
        parse_tee_key(jwk)


def test_an_unhashable_curve_is_refused():
    with pytest.raises(TeeKeyInvalid):
        parse_tee_key(changed(crv=["P-256"]))
