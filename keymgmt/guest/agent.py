"""What the agent does: attest, fetch the key, open the sealed input, work on it, write a result."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from keymgmt.attestation.kbs_evidence import snp_evidence
from keymgmt.guest.errors import CommandFailed, FileFault, KeyRefused
from keymgmt.guest.kbs_client import Challenge, KbsClient, SessionEnded, attest_body, report_data
from keymgmt.guest.sealed_input import unseal
from keymgmt.guest.tee_key import KeyKind, TeeKey, wipe
from keymgmt.guest.tsm import TsmDevice
from keymgmt.wrapping.hardening import die_with_parent

MAX_COMMAND_OUTPUT: Final = 64 * 1024
MAX_HANDSHAKES: Final = 6
MAX_INIT_DATA: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class GuestTask:
    """One run: which key, which sealed input, where the result goes, what to run on the plaintext."""

    resource: str
    sealed_input: Path
    output: Path
    init_data: Path | None = None
    command: Sequence[str] = ()
    key_kind: KeyKind = "hybrid"
    version: int | None = None  # of the key; the present one without it


def run(task: GuestTask, client: KbsClient, device: TsmDevice) -> dict[str, Any]:
    """Do the task; returns the result that was also written to `task.output`, whole or not at all.

    Raises GuestError of the kind that tells the exit status.
    """
    init_data = None if task.init_data is None else _text(task.init_data)
    asked = versioned(task.resource, task.version)
    key = fetch_key(client, device, asked, init_data=init_data, key_kind=task.key_kind)
    try:
        with _opened(task.sealed_input) as sealed:
            result = work(unseal(sealed, key, task.resource), task.resource, task.command)
    finally:
        wipe(key)
    write_result(task.output, result)
    return result


def versioned(resource: str, version: int | None) -> str:
    """The resource of a former version: namespace/key.N/name."""
    if version is None:
        return resource
    namespace, kind, name = resource.split("/", 2)
    return f"{namespace}/{kind}.{version}/{name}"


def fetch_key(
    client: KbsClient,
    device: TsmDevice,
    resource: str,
    *,
    init_data: str | None = None,
    key_kind: KeyKind = "hybrid",
) -> bytearray:
    """Handshake and fetch; the caller wipes the key. A session that ended is begun anew, a few times."""
    for attempt in range(MAX_HANDSHAKES):
        tee_key = TeeKey(key_kind)
        try:
            handshake(client, device, tee_key, init_data)
            return tee_key.decrypt(client.resource(resource))
        except SessionEnded:
            if attempt + 1 == MAX_HANDSHAKES:
                raise
    raise KeyRefused("no session could be kept", where=resource)


def handshake(client: KbsClient, device: TsmDevice, tee_key: TeeKey, init_data: str | None) -> str:
    """Auth and attest with evidence over this session's nonce and key; returns the EAR token."""
    challenge = client.authenticate("snp")
    public = tee_key.public_jwk()
    evidence = device.report(report_data(challenge, public, ""))
    primary = snp_evidence(evidence.report, evidence.certificates)
    return client.attest(challenge, public, primary, init_data=init_data)


def recorded_evidence(device: TsmDevice, init_data: str | None, key_kind: KeyKind = "hybrid") -> dict[str, Any]:
    """The body of an attest request over a nonce and a key of the guest's own: to try policies on, good for no key."""
    challenge = Challenge(base64.b64encode(os.urandom(32)).decode(), "sha384")
    public = TeeKey(key_kind).public_jwk()
    evidence = device.report(report_data(challenge, public, ""))
    primary = snp_evidence(evidence.report, evidence.certificates)
    return attest_body(challenge, public, primary, "", init_data)


def work(chunks: Iterator[bytes], resource: str, command: Sequence[str]) -> dict[str, Any]:
    """Digest the plaintext and, with a command, feed it to that command and keep what it prints."""
    digest, size, records = hashlib.sha256(), 0, 0

    def counted() -> Iterator[bytes]:
        nonlocal size, records
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            records += chunk.count(b"\n")
            yield chunk

    output = None
    if command:
        output = feed(counted(), command)
    else:
        _drain(counted())
    result: dict[str, Any] = {
        "resource": resource,
        "sha256": digest.hexdigest(),
        "bytes": size,
        "records": records,
    }
    return result if output is None else {**result, "output": output}


def feed(chunks: Iterator[bytes], command: Sequence[str]) -> str:
    """Run `command` with the plaintext on its stdin; its stdout (at most 64 KiB) is the result.

    The command ends with this process: it is killed on any fault, so that a plaintext whose
    end turns out forged leaves no result. Raises CommandFailed.
    """
    parent = os.getpid()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: die_with_parent(parent),
        )
    except OSError as error:
        raise CommandFailed(f"cannot start: {error.strerror}", where=command[0]) from None
    assert process.stdin is not None
    assert process.stdout is not None
    printed = bytearray()
    reader = threading.Thread(target=_collect, args=(process.stdout, printed), daemon=True)
    reader.start()
    try:
        try:
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            _drain(chunks)  # the command has read enough; the input must still prove whole
        reader.join()
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if len(printed) > MAX_COMMAND_OUTPUT:
        raise CommandFailed(f"printed more than {MAX_COMMAND_OUTPUT} bytes", where=command[0])
    if status != 0:
        raise CommandFailed(f"ended with status {status}", where=command[0])
    return printed.decode("utf-8", "replace")


def write_result(path: Path, document: dict[str, Any]) -> None:
    """Write JSON so that a reader, or a crash, never meets half of it. Raises FileFault."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w") as stream:
            json.dump(document, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileFault(f"the result cannot be written: {error.strerror}", where=str(path)) from None


def _collect(stream: BinaryIO, into: bytearray) -> None:
    while part := stream.read(4096):
        if len(into) <= MAX_COMMAND_OUTPUT:
            into += part


def _drain(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileFault(f"the sealed input cannot be read: {error.strerror}", where=str(path)) from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_INIT_DATA + 1)
        if len(data) > MAX_INIT_DATA:
            raise FileFault(f"longer than {MAX_INIT_DATA} bytes", where=str(path))
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFault(f"the init data cannot be read: {error}", where=str(path)) from None
