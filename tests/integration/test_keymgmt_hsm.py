"""The real SoftHSM2: data keys, destruction, signatures, import, each fallback, and durability."""

import hashlib
import os

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keymgmt.hsm.mechanisms import probe
from keymgmt.hsm.pkcs11_session import Pkcs11Session
from keymgmt.hsm.protocol import HsmError, HsmKeyGone
from keymgmt.hsm.token import TokenSettings, locate
from keymgmt.sealing.format import DataKeyAlgorithm, EncryptedDataKey, KeyContext, SealedKey
from keymgmt.sealing.seal import seal, unseal

CONTEXT = KeyContext("tenant-a", "team-a/dataset/0123", 1, bytes(32), bytes(32), "JP", "AES-256-GCM")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    # SoftHSM reads its configuration once a process, so one token serves the module.
    return locate(TokenSettings(), tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def session(place):
    return Pkcs11Session(place)


@pytest.fixture(scope="module")
def limited_session(place, session):
    """The same token as if it had neither GCM nor elliptic curves."""
    # One login a process and token, so this session shares the other's.
    other = object.__new__(Pkcs11Session)
    other.__dict__.update(session.__dict__)
    slot = session._library.get_token(token_label=place.label).slot
    other._choices = probe(slot, ["AES_GCM", "EDDSA", "ECDSA"])
    other._capabilities = other._choices.capabilities("module", "token")
    other._handles, other._software = {}, {}

    def reopen_both():
        Pkcs11Session._reopen(session)
        other._session = session._session
        other._handles.clear()

    session._reopen = other._reopen = reopen_both
    return other


@pytest.fixture(params=["session", "limited_session"])
def any_session(request):
    return request.getfixturevalue(request.param)


def test_the_token_is_private_and_made_once(place):
    folder = place.token_folder
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder.parent / "pin").stat().st_mode & 0o077 == 0
    assert len(list(folder.iterdir())) == 1
    again = locate(TokenSettings(), folder.parent.parent)
    assert again.pin == place.pin
    assert len(list(folder.iterdir())) == 1


def test_a_lost_pin_is_told_apart_from_a_first_start(place, tmp_path):
    tokens = tmp_path / "hsm" / "tokens" / "something"
    tokens.mkdir(parents=True)
    before = os.environ["SOFTHSM2_CONF"]
    try:
        with pytest.raises(HsmError, match="PIN file is gone"):
            locate(TokenSettings(), tmp_path)
    finally:
        os.environ["SOFTHSM2_CONF"] = before
    assert tokens.exists()


def test_capabilities_state_every_fallback(session):
    capabilities = session.capabilities
    assert capabilities.data_key == "AES-GCM"
    assert capabilities.ecdsa_p256 == capabilities.ed25519 == "hsm"
    assert capabilities.import_wrapping == "RSA-OAEP-SHA1"
    assert any("SHA-1" in line for line in capabilities.fallbacks)
    assert any("re-wrapping" in line for line in capabilities.fallbacks)


def test_data_keys_are_bound_to_their_context(any_session):
    key_id = any_session.generate_wrapping_key()
    data_key = os.urandom(32)
    encrypted = any_session.encrypt_data_key(key_id, data_key, b"context")
    assert data_key not in encrypted.ciphertext
    assert any_session.decrypt_data_key(encrypted, b"context") == data_key
    with pytest.raises(HsmError):
        any_session.decrypt_data_key(encrypted, b"another context")
    broken = bytes([encrypted.ciphertext[0] ^ 1]) + encrypted.ciphertext[1:]
    with pytest.raises(HsmError):
        any_session.decrypt_data_key(EncryptedDataKey(encrypted.algorithm, key_id, encrypted.iv, broken), b"context")


def test_sealing_through_the_token(any_session):
    key_id = any_session.generate_wrapping_key()
    key = os.urandom(32)
    encoded = seal(key, CONTEXT, key_id, any_session).encode()
    assert unseal(SealedKey.decode(encoded), CONTEXT, any_session) == key


def test_a_destroyed_key_revives_nothing(any_session):
    key_id = any_session.generate_wrapping_key()
    old_copy = seal(os.urandom(32), CONTEXT, key_id, any_session)
    assert key_id in any_session.wrapping_keys()
    assert any_session.destroy(key_id)
    assert not any_session.destroy(key_id)
    assert key_id not in any_session.wrapping_keys()
    with pytest.raises(HsmKeyGone):
        unseal(old_copy, CONTEXT, any_session)


def test_wrapping_keys_cannot_leave(session):
    import pkcs11

    handle = session._wrapping_key(session.generate_wrapping_key())
    with pytest.raises(pkcs11.exceptions.PKCS11Error):
        handle[pkcs11.Attribute.VALUE]
    assert handle[pkcs11.Attribute.SENSITIVE]
    assert not handle[pkcs11.Attribute.EXTRACTABLE]
    assert handle[pkcs11.Attribute.NEVER_EXTRACTABLE]


def test_signatures_verify_with_an_independent_library(any_session):
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), any_session.ear_public_key())
    signature = any_session.sign_es256(b"token")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), b"token", ec.ECDSA(hashes.SHA256()))
    log = ed25519.Ed25519PublicKey.from_public_bytes(any_session.log_public_key())
    log.verify(any_session.sign_ed25519(b"checkpoint"), b"checkpoint")
    with pytest.raises(InvalidSignature):
        log.verify(any_session.sign_ed25519(b"checkpoint"), b"another")


def test_software_keys_last_and_are_sealed(limited_session):
    assert limited_session.data_key_algorithm is DataKeyAlgorithm.AES_KWP
    before = limited_session.ear_public_key(), limited_session.log_public_key()
    limited_session._software.clear()
    assert (limited_session.ear_public_key(), limited_session.log_public_key()) == before
    assert (limited_session._place.token_folder.parent / "log.sealed").stat().st_mode & 0o077 == 0
    assert len(limited_session.capabilities.fallbacks) == 5


def test_import_unwraps_what_was_wrapped_for_it(session):
    key = session.import_key()
    assert key == session.import_key()
    public = load_pem_public_key(key.public_key.encode())
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    wrapped = public.encrypt(b"k" * 32, oaep)
    assert session.unwrap_import(key.kid, wrapped) == b"k" * 32
    with pytest.raises(HsmError):
        session.unwrap_import(key.kid, bytes(len(wrapped)))
    with pytest.raises(HsmError, match="unknown import key"):
        session.unwrap_import(hashlib.sha256(b"other").hexdigest(), wrapped)


def test_a_wrong_pin_is_refused_without_showing_it(place):
    from dataclasses import replace

    with pytest.raises(HsmError) as refused:
        Pkcs11Session(replace(place, label="absent"))
    assert place.pin not in str(refused.value)
