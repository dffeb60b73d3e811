"""`kekkai log witness` as a process, a log that asks it over HTTP, and the monitor's command line."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from typer.testing import CliRunner

from api.cli.log import app
from keymgmt.transparency.cosignature import WitnessKey, cosignatures
from keymgmt.transparency.witnesses import Cosigner, Witness
from keymgmt.witness.client import HttpWitness
from tests.logs import KEY, open_log, release

RUN = [sys.executable, "-c", "from api.cli.log import app; app()"]


def cli(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def witness(tmp_path):
    """A witness's vkey and URL; the process is killed and started again by calling `restart`."""
    made = cli("witness-key", "witness.test/w1", "--out", tmp_path / "w1.key", "-o", "json")
    vkey = json.loads(made.stdout)["vkey"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {"listen": {"port": port}, "state": "memory", "keys": ["w1.key"], "logs": [str(KEY)]}
    (tmp_path / "witness.yaml").write_text(json.dumps(config))
    running = []

    def restart():
        for one in running:
            one.kill()
            one.wait()
        command = [*RUN, "witness", "--config", str(tmp_path / "witness.yaml")]
        running.append(subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}))
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}/latest/nothing", trust_env=False)
                return
            except httpx.HTTPError:
                assert running[-1].poll() is None
                time.sleep(0.05)
        raise AssertionError("the witness does not answer")

    restart()
    yield vkey, f"http://127.0.0.1:{port}", restart
    running[-1].kill()
    running[-1].wait()


def test_a_log_its_witness_and_a_monitor(witness, tmp_path):
    vkey, url, restart = witness
    key = WitnessKey.parse(vkey)

    def asked():
        return Cosigner([Witness(key, HttpWitness(url, timeout=20))], 1, seconds=20)

    log = open_log(tmp_path / "log", asked())
    log.append([release(1)])
    assert set(cosignatures(log.signed_checkpoint, [key])) == {"witness.test/w1"}
    restart()  # kill -9: what it has cosigned, it remembers
    log = open_log(tmp_path / "log", asked())
    log.append([release(2, measurement="evil")])
    latest = httpx.get(f"{url}/latest/{KEY.name}", trust_env=False).content
    (tmp_path / "latest").write_bytes(latest)
    (tmp_path / "mine.yaml").write_text(
        json.dumps({"expect": [{"key": "aurora-train/dataset", "measurements": ["ab"], "max": 9}]})
    )
    common = ["monitor", tmp_path / "log", "--vkey", str(KEY), "--state", tmp_path / "state", "--witness", vkey]
    common += ["--quorum", "1", "--compare", tmp_path / "latest", "--expectations", tmp_path / "mine.yaml"]
    first = cli(*common)
    assert first.exit_code == 3, first.output
    assert json.loads(first.stdout)["index"] == 1
    second = cli(*common)
    assert (second.exit_code, json.loads(second.stdout)) == (0, {"ok": True, "size": 2})
    fork = open_log(tmp_path / "fork")
    fork.append([release(7), release(8)])
    third = cli(*["monitor", tmp_path / "fork", *common[2:]])
    assert third.exit_code == 3
    assert json.loads(third.stdout.splitlines()[0])["alarm"] == "fork"
