"""The worker's main: `python -m keymgmt.wrapping.worker --fd N --parent PID --config JSON`.

One HSM session, one request at a time. It ends when the socket closes or its parent dies.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from crds.errors import KekkaiError
from keymgmt.json_logs import configure
from keymgmt.wrapping.channel import Decoder, encode, error_to_map, read
from keymgmt.wrapping.hardening import die_with_parent, harden

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Serve until the other side goes away."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--hsm", required=True)
    options = parser.parse_args(argv)
    configure("info")
    die_with_parent(options.parent)
    # Ctrl-C reaches the whole process group; the service decides when its worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hardening = harden()
    connection = socket.socket(fileno=options.fd)
    try:
        operations, hello = _start(options.data_dir, json.loads(options.hsm))
    except KekkaiError as error:
        connection.sendall(encode({"id": 0, "error": error_to_map(error)}))
        return 1
    connection.sendall(encode({"id": 0, "result": {**hello, "hardening": hardening}}))
    decoder = Decoder()
    while (messages := read(connection, decoder)) is not None:
        for message in messages:
            connection.sendall(encode(_answer(operations, message)))
    return 0


def _start(data_dir: Path, hsm: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from keymgmt.hsm.pkcs11_session import Pkcs11Session
    from keymgmt.hsm.token import TokenSettings, locate
    from keymgmt.wrapping.operations import Operations

    config = TokenSettings(**hsm)
    session = Pkcs11Session(locate(config, data_dir), config.avoid)
    hello = {
        "capabilities": session.capabilities.as_dict(),
        "ear_public_key": session.ear_public_key(),
        "log_public_key": session.log_public_key(),
    }
    return Operations(session), hello


def _answer(operations: Any, message: dict[str, Any]) -> dict[str, Any]:
    number = message.get("id")
    try:
        return {"id": number, "result": operations.call(message["operation"], message["arguments"])}
    except KekkaiError as error:
        return {"id": number, "error": error_to_map(error)}
    except Exception as error:
        # The text of an unknown error might quote its arguments: only its type is told.
        logger.error("operation failed: %s", type(error).__name__)
        return {
            "id": number,
            "error": {"status": 500, "reason": "WorkerError", "what": f"failed: {type(error).__name__}"},
        }


if __name__ == "__main__":
    sys.exit(main())
