"""Our log and our JWE, checked by a small Go program: x/mod's sumdb note and tlog, and go-jose."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keymgmt.wrapping.jwe import encrypt
from keymgmt.wrapping.recipients import b64url, parse_tee_key
from local.controlplane.cache import cache_root, locked
from tests.logs import KEY, cosigner, open_log, peers, release

SOURCE = Path(__file__).parent / "tlog"


@pytest.fixture(scope="session")
def program():
    """The program, built by the Go toolchain that the set-up brings; cached by the sources' digest."""
    files = [SOURCE / name for name in ("main.go", "go.mod", "go.sum")]
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in files)).hexdigest()[:16]
    built = cache_root() / "interop" / f"tlog-{digest}"
    built.parent.mkdir(parents=True, exist_ok=True)
    with locked(built.parent):
        if not built.exists():
            environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
            made = built.with_suffix(".part")
            command = ["go", "build", "-mod=readonly", "-o", str(made), "."]
            subprocess.run(command, cwd=SOURCE, env=environment, check=True, timeout=300)
            made.rename(built)
    return built


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A log of 700 entries with cosigned checkpoints, and its checkpoint at 300."""
    where = tmp_path_factory.mktemp("go")
    log = open_log(where / "log", cosigner(peers(where)))
    log.append([release(number) for number in range(300)])
    (where / "old").write_bytes(log.signed_checkpoint)
    log.append([release(number) for number in range(300, 700)])
    return where


def test_signature_inclusion_and_consistency(program, folder):
    done = run(program, "log", folder / "log", KEY, folder / "old")
    assert done.stderr == b""
    assert done.stdout == b"size 700 inclusions 700\nextends 300\n"


def test_it_sees_a_changed_entry_and_a_fork(program, folder, tmp_path):
    log = open_log(tmp_path / "log")
    log.append([release(number) for number in range(300)])
    bundle = tmp_path / "log/tile/entries/001.p/44"
    bundle.write_bytes(bundle.read_bytes().replace(b'"count":299', b'"count":298'))
    assert b"entry 299" in run(program, "log", tmp_path / "log", KEY).stderr
    fork = open_log(tmp_path / "fork")
    fork.append([release(number, measurement="evil") for number in range(400)])
    done = run(program, "log", tmp_path / "fork", KEY, folder / "old")
    assert done.returncode == 1
    assert b"size 400 inclusions 400" in done.stdout  # sound in itself, and not an extension


def _int(number, size):
    return b64url(number.to_bytes(size, "big"))


def _elliptic(curve, name, size):
    private = ec.generate_private_key(curve)
    point = private.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": name, "alg": "ECDH-ES+A256KW", "x": _int(point.x, size), "y": _int(point.y, size)}
    return private, jwk


def _rsa():
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "RSA", "alg": "RSA-OAEP-256", "n": _int(numbers.n, 256), "e": _int(numbers.e, 3)}
    return private, jwk


@pytest.mark.parametrize(
    "pair",
    [lambda: _elliptic(ec.SECP256R1(), "P-256", 32), lambda: _elliptic(ec.SECP521R1(), "P-521", 66), _rsa],
    ids=["P-256", "P-521", "RSA"],
)
def test_go_jose_opens_our_jwe(program, tmp_path, pair):
    private, jwk = pair()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "reply.jwe").write_text(encrypt(b"a data key of 32 bytes, or so....", parse_tee_key(jwk)))
    done = run(program, "jwe", tmp_path / "key.pem", tmp_path / "reply.jwe")
    assert (done.stdout, done.stderr) == (b"a data key of 32 bytes, or so....", b"")
