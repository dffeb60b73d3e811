"""A log in an object store: the same bytes as on files, tiles never overwritten, a checkpoint that only grows."""

import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moto.server import ThreadedMotoServer

from crds.errors import InvalidInput, Unavailable
from keymgmt.transparency.errors import LogCorrupt, LogFenced, LogRolledBack
from keymgmt.transparency.log import CHECKPOINT, TransparencyLog
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.storage import ObjectTiles
from keymgmt.transparency.tiles import TileFiles

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("kekkai.test/log", PRIVATE.public_key().public_bytes_raw())


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def open_store(endpoint, monkeypatch, request):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bucket = f"log-{zlib.crc32(request.node.name.encode())}"
    options = {"endpoint_url": endpoint, "client_kwargs": {"region_name": "eu-west-1"}}
    ObjectTiles(f"s3://{bucket}/x", options)._files.mkdir(bucket)
    return lambda: ObjectTiles(f"s3://{bucket}/kekkai/log", options)


def test_the_same_log_as_on_files(open_store, tmp_path):
    stored, filed = TransparencyLog(open_store(), KEY, PRIVATE.sign), TransparencyLog(tmp_path, KEY, PRIVATE.sign)
    for size in (1, 5, 256, 700):
        for log in (stored, filed):
            log.append([b"entry %d" % index for index in range(log.size, size)])
    assert stored.signed_checkpoint == filed.signed_checkpoint
    store = open_store()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert store.read(str(path.relative_to(tmp_path))) == path.read_bytes()
    assert store.read("tile/0/000.p/5") is None  # dropped when the tile became full
    assert TransparencyLog(store, KEY, PRIVATE.sign).size == 700


def test_tiles_are_written_once_and_the_checkpoint_only_grows(open_store):
    log = TransparencyLog(open_store(), KEY, PRIVATE.sign)
    log.append([b"0"])
    first = log.signed_checkpoint
    log.append([b"1"])
    store = open_store()
    store.write_new({"tile/0/000.p/1": store.read("tile/0/000.p/1")})
    with pytest.raises(LogCorrupt, match="would change"):
        store.write_new({"tile/0/000.p/1": bytes(32)})
    with pytest.raises(LogRolledBack, match="2 entries"):
        store.replace(CHECKPOINT, first)


def test_of_two_writers_one_is_refused(open_store, monkeypatch):
    log = TransparencyLog(open_store(), KEY, PRIVATE.sign)
    log.append([b"0"])
    slow = open_store()
    condition = slow._unchanged(CHECKPOINT, log.signed_checkpoint)
    log.append([b"1"])
    monkeypatch.setattr(slow, "_unchanged", lambda path, content: condition)
    with pytest.raises(LogFenced):
        slow.replace(CHECKPOINT, log.signed_checkpoint)


def test_full_tiles_are_read_once(open_store, monkeypatch):
    log = TransparencyLog(open_store(), KEY, PRIVATE.sign)
    log.append([b"%d" % index for index in range(300)])
    store, asked = open_store(), []
    fetch = store._fetch
    monkeypatch.setattr(store, "_fetch", lambda path: asked.append(path) or fetch(path))
    for _ in range(3):
        assert len(store.read("tile/0/000")) == 8192
        assert store.read(CHECKPOINT) == log.signed_checkpoint
    assert asked.count("tile/0/000") == 1
    assert asked.count(CHECKPOINT) == 3


def test_a_store_out_of_reach(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    options = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(Unavailable, match="object store"):
        ObjectTiles("s3://nowhere/log", options).read(CHECKPOINT)
    with pytest.raises(InvalidInput):
        ObjectTiles("nosuch://x/y")


def test_any_store_of_fsspec(tmp_path):
    stored, filed = ObjectTiles(f"memory://{tmp_path.name}/log"), TileFiles(tmp_path)
    for store in (stored, filed):
        log = TransparencyLog(store, KEY, PRIVATE.sign)
        log.append([b"0", b"1"])
        with pytest.raises(LogCorrupt, match="would change"):
            store.write_new({"tile/0/000.p/2": bytes(64)})
    assert stored.read(CHECKPOINT) == filed.read(CHECKPOINT)
