"""Targets of the log's outside bytes: witness requests and answers, cosignatures, proofs, a monitor's state."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from keymgmt.transparency.cosignature import WitnessKey, cosignatures
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.merkle import consistency_proof
from keymgmt.transparency.monitor import MonitorState
from keymgmt.transparency.note import VerifierKey, parse_checkpoint, split_note
from keymgmt.transparency.tiles import TileNodes
from keymgmt.transparency.verify import check_proof, prove, proved_index
from keymgmt.transparency.witness_protocol import SIZE_TYPE, AddCheckpoint, Answer, lines_of, size_of
from tests.fuzz.target import Target, of_json
from tests.logs import KEY, cosigner, identity, open_log, peers, release


def _cosigned(data: bytes) -> None:
    cosignatures(data, [identity(number).key for number in (1, 2, 3)])


def _proof(data: bytes) -> None:
    proved_index(data)
    check_proof(data, b"entry", KEY)


def targets() -> list[Target]:
    """All of them; the seeds come from a small log with witnesses."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        log = open_log(folder / "log", cosigner(peers(folder)))
        log.append([release(number) for number in range(5)])
        log.append([release(number) for number in range(5, 8)])
        path = tuple(consistency_proof(5, 8, TileNodes(log.files, 8)))
        proof = prove(log.files, KEY, 3)
    signed = log.signed_checkpoint
    text, lines = split_note(signed)
    request = AddCheckpoint(5, path, signed).encode()
    answer = "".join(f"{line}\n" for line in lines[1:]).encode()
    keys = (str(KEY).encode(), str(identity(1).key).encode())
    state = MonitorState(signed, {"a/b": 3}).encode()
    expectations = json.dumps({"expect": [{"key": "a/b", "max": 1, "notBefore": "2026-11-01T00:00:00Z"}]}).encode()
    return [
        Target("witness-request", AddCheckpoint.parse, (request,)),
        Target("witness-lines", lambda data: lines_of(Answer(200, data)), (answer,)),
        Target("witness-size", lambda data: size_of(Answer(409, data, SIZE_TYPE)), (b"8\n",)),
        Target("cosignatures", _cosigned, (signed,)),
        Target("checkpoint-text", lambda data: parse_checkpoint(data.decode("latin-1")), (text.encode(),)),
        Target("log-proof", _proof, (proof,)),
        Target("log-vkey", lambda data: VerifierKey.parse(data.decode("latin-1")), keys),
        Target("witness-vkey", lambda data: WitnessKey.parse(data.decode("latin-1")), keys),
        Target("monitor-state", MonitorState.decode, (state,)),
        Target("expectations", of_json(Expectations.parse), (expectations,)),
    ]
