"""The agent against a small key service in this process, with evidence from an emulated guest."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation import AttestationRefused, SnpPolicy, TrustRoots, parse_kbs_evidence, verify_snp
from keymgmt.guest.agent import MAX_COMMAND_OUTPUT, MAX_HANDSHAKES, GuestTask, run
from keymgmt.guest.errors import (
    CommandFailed,
    EvidenceUnavailable,
    FileFault,
    KeyRefused,
    KeyServiceUnreachable,
    SealedInputInvalid,
)
from keymgmt.guest.kbs_client import KbsClient
from keymgmt.guest.sealed_input import seal
from keymgmt.guest.tsm import TsmDevice
from keymgmt.wrapping import jwe, recipients
from local.hardware.snp.platform import SnpPlatform

KEY = bytes(range(1, 33))
NAME = "aurora-train/key/dataset"
TEXT = b"one\ntwo\nthree\n" * 1000
PREFIX = "https://github.com/confidential-containers/kbs/errors/"
Handler = Callable[[httpx.Request], httpx.Response]


class KeyService:
    """KBS 0.4.0 as little as the agent needs; evidence is really verified."""

    def __init__(self, trust_root: Path) -> None:
        self.roots = TrustRoots.from_directory(trust_root)
        self.selected: dict[str, Any] = {}
        self.hash = "sha384"
        self.calls: list[str] = []
        self.faults: list[Handler] = []  # each replaces one reply
        self.sessions: dict[str, dict[str, Any]] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request.url.path)
        if self.faults:
            return self.faults.pop(0)(request)
        if request.url.path == "/kbs/v0/auth":
            return self._auth(json.loads(request.content))
        session = self.sessions.get(request.headers.get("cookie", "").partition("=")[2])
        if session is None:
            return refusal("TokenNotFound", "no session")
        if request.url.path == "/kbs/v0/attest":
            return self._attest(session, json.loads(request.content))
        if "key" not in session:
            return refusal("TokenNotFound", "not attested")
        return httpx.Response(200, text=jwe.encrypt(KEY, session["key"]))

    def _auth(self, body: dict[str, Any]) -> httpx.Response:
        assert body["version"] == "0.4.0"
        assert body["tee"] == "snp"
        assert "sha384" in body["extra-params"]["supported-hash-algorithms"]
        name, nonce = os.urandom(16).hex(), base64.b64encode(os.urandom(32)).decode()
        self.sessions[name] = {"nonce": nonce}
        headers = {"set-cookie": f"kbs-session-id={name}"}
        return httpx.Response(200, json={"nonce": nonce, "extra-params": self.selected or ""}, headers=headers)

    def _attest(self, session: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
        runtime = body["runtime-data"]
        bound = {"additional-evidence": body["tee-evidence"]["additional_evidence"], **runtime}
        digest = hashlib.new(self.hash, strict_json.canonical(bound)).digest()
        evidence = parse_kbs_evidence("snp", body["tee-evidence"]["primary_evidence"])
        if runtime["nonce"] != session["nonce"]:
            return refusal("RcarAttestFailed", "nonce")
        try:
            verify_snp(evidence.report, evidence.certificates, self.roots, SnpPolicy(), datetime.now(UTC), digest)
        except AttestationRefused as error:
            return refusal("RcarAttestFailed", error.problem.reason)
        session["key"] = recipients.parse_tee_key(runtime["tee-pubkey"])
        session["init-data"] = body.get("init-data")
        return httpx.Response(200, json={"token": "a.b.c"})


def refusal(variant: str, detail: str, status: int = 401) -> httpx.Response:
    return httpx.Response(status, json={"type": PREFIX + variant, "detail": detail})


class Time:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += max(seconds, 0.001)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> SnpPlatform:
    return SnpPlatform(tmp_path_factory.mktemp("snp"))


@pytest.fixture
def device(platform: SnpPlatform, tmp_path: Path) -> Iterator[TsmDevice]:
    with platform.launch("node-1", tmp_path / "tsm") as guest:
        yield TsmDevice(guest.root)


@pytest.fixture
def service(platform: SnpPlatform) -> KeyService:
    return KeyService(platform.trust_root)


@pytest.fixture
def task(tmp_path: Path) -> GuestTask:
    sealed = tmp_path / "input.sealed"
    sealed.write_bytes(b"".join(seal(io.BytesIO(TEXT), KEY, NAME, chunk_bytes=1024)))
    return GuestTask(NAME, sealed, tmp_path / "result.json")


def client(service: Handler, times: Time | None = None, deadline: float = 60.0) -> KbsClient:
    times = times or Time()
    transport = httpx.MockTransport(service)
    return KbsClient("https://keys", transport=transport, deadline=deadline, clock=times.clock, sleep=times.sleep)


def test_from_evidence_to_result(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    result = run(task, client(service), device)
    assert result == json.loads(task.output.read_text())
    assert result == {
        "resource": NAME,
        "sha256": hashlib.sha256(TEXT).hexdigest(),
        "bytes": len(TEXT),
        "records": 3000,
    }
    assert service.calls == ["/kbs/v0/auth", "/kbs/v0/attest", f"/kbs/v0/resource/{NAME}"]


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_key_kinds_and_hashes(service: KeyService, device: TsmDevice, task: GuestTask, kind: Any, name: str) -> None:
    service.selected, service.hash = {"selected-hash-algorithm": name}, name
    changed = GuestTask(task.resource, task.sealed_input, task.output, key_kind=kind)
    assert run(changed, client(service), device)["records"] == 3000


def test_init_data_is_sent_as_it_is(service: KeyService, device: TsmDevice, task: GuestTask, tmp_path: Path) -> None:
    document = 'algorithm = "sha256"\n[data]\n"aa.toml" = "å"\n'
    (tmp_path / "init.toml").write_text(document)
    run(GuestTask(NAME, task.sealed_input, task.output, tmp_path / "init.toml"), client(service), device)
    assert next(iter(service.sessions.values()))["init-data"] == {"format": "toml", "body": document}


def test_refused_evidence_is_not_retried(platform: SnpPlatform, service: KeyService, task: GuestTask) -> None:
    with (
        platform.launch("node-1", task.output.parent / "debug", debug=True) as guest,
        pytest.raises(KeyRefused) as caught,
    ):
        run(task, client(service), TsmDevice(guest.root))
    assert (caught.value.exit_code, caught.value.problem.reason) == (3, "RcarAttestFailed")
    assert caught.value.problem.what == "DebugAllowed"
    assert service.calls.count("/kbs/v0/attest") == 1
    assert not task.output.exists()


def test_passing_faults_are_retried_with_growing_pauses(
    service: KeyService, device: TsmDevice, task: GuestTask
) -> None:
    def absent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    busy: Handler = lambda _: refusal("PluginInternalError", "busy", 503)  # noqa: E731
    many: Handler = lambda _: httpx.Response(429, text="slow down")  # noqa: E731
    service.faults = [absent, busy, many, absent, busy]
    times = Time()
    assert run(task, client(service, times), device)["records"] == 3000
    assert len(times.pauses) == 5
    for number, pause in enumerate(times.pauses):
        assert 0.1 * 2**number <= pause <= 0.2 * 2**number


def test_unreachable_until_the_deadline(device: TsmDevice, task: GuestTask) -> None:
    def absent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("nobody", request=request)

    times = Time()
    with pytest.raises(KeyServiceUnreachable) as caught:
        run(task, client(absent, times, deadline=30.0), device)
    assert caught.value.exit_code == 4
    assert "ConnectTimeout" in caught.value.problem.what
    assert 30.0 <= times.now < 31.0
    assert max(times.pauses) <= 5.0


def test_a_lost_session_is_begun_anew(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    def forget(_: httpx.Request) -> httpx.Response:
        service.sessions.clear()
        return refusal("TokenNotFound", "Attestation Token not found")

    good: Handler = service.__class__.__call__.__get__(service)
    order = iter(["auth", "attest", "forget"])

    def handler(request: httpx.Request) -> httpx.Response:
        return forget(request) if next(order, "") == "forget" else good(request)

    assert run(task, client(handler), device)["records"] == 3000
    assert service.calls.count("/kbs/v0/auth") == 2


def test_an_answer_lost_on_the_way_is_not_taken_for_a_refusal(
    service: KeyService, device: TsmDevice, task: GuestTask
) -> None:
    """The service took the challenge and died before it answered: the next try hears that it was replayed."""

    def died(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection lost", request=request)

    def handler(request: httpx.Request) -> httpx.Response:
        if service.calls == ["/kbs/v0/auth"]:
            service.faults = [died, lambda _: refusal("RcarAttestFailed", "NonceReplayed")]
        return service(request)

    run(task, client(handler, Time()), device)
    assert service.calls == [f"/kbs/v0/{step}" for step in ("auth", "attest", "attest", "auth", "attest")] + [
        f"/kbs/v0/resource/{NAME}"
    ]


def test_sessions_that_never_last_end_in_a_refusal(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return refusal("TokenNotFound", "again") if "/resource/" in request.url.path else service(request)

    with pytest.raises(KeyRefused) as caught:
        run(task, client(handler), device)
    assert caught.value.problem.what == "again"
    assert service.calls.count("/kbs/v0/auth") == MAX_HANDSHAKES


@pytest.mark.parametrize(
    ("variant", "status"), [("PolicyDeny", 401), ("InvalidRequestPath", 404), ("RcarAuthFailed", 401), ("", 418)]
)
def test_refusals_show_the_services_words(device: TsmDevice, task: GuestTask, variant: str, status: int) -> None:
    with pytest.raises(KeyRefused) as caught:
        run(task, client(lambda _: refusal(variant, "Access denied by policy", status)), device)
    assert caught.value.problem.what == "Access denied by policy"
    assert caught.value.problem.reason == (variant or "KeyRefused")


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"nonce": 7},
        {"nonce": ""},
        {"nonce": "x" * 2000},
        {"nonce": "bm9uY2U=", "extra-params": {"selected-hash-algorithm": "md5"}},
    ],
)
def test_unusable_challenges_are_refused(device: TsmDevice, task: GuestTask, reply: dict[str, Any]) -> None:
    with pytest.raises(KeyRefused):
        run(task, client(lambda _: httpx.Response(200, json=reply)), device)


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 100])
def test_replies_that_are_no_json_objects(device: TsmDevice, task: GuestTask, body: bytes) -> None:
    with pytest.raises(KeyRefused) as caught:
        run(task, client(lambda _: httpx.Response(200, content=body)), device)
    assert caught.value.problem.reason == "ReplyMalformed"


def test_replies_are_bounded(device: TsmDevice, task: GuestTask) -> None:
    huge = httpx.Response(200, content=b"x" * ((1 << 20) + 1))
    with pytest.raises(KeyRefused) as caught:
        run(task, client(lambda _: huge), device)
    assert caught.value.problem.reason == "ReplyTooLarge"


@pytest.mark.parametrize("change", ["stranger", "tag", "algorithm", "empty", "missing"])
def test_wrong_key_replies(service: KeyService, device: TsmDevice, task: GuestTask, change: str) -> None:
    from keymgmt.guest.tee_key import TeeKey

    def handler(request: httpx.Request) -> httpx.Response:
        reply = service(request)
        if "/resource/" not in request.url.path:
            return reply
        if change == "stranger":
            return httpx.Response(200, text=jwe.encrypt(KEY, recipients.parse_tee_key(TeeKey().public_jwk())))
        if change == "empty":
            key = next(iter(service.sessions.values()))["key"]
            return httpx.Response(200, text=jwe.encrypt(b"", key))
        document = json.loads(reply.content)
        if change == "tag":
            document["tag"] = base64.urlsafe_b64encode(bytes(16)).decode().rstrip("=")
        elif change == "algorithm":
            header = {"alg": "dir", "enc": "A256GCM"}
            document["protected"] = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
        else:
            del document["iv"]
        return httpx.Response(200, json=document)

    with pytest.raises(KeyRefused) as caught:
        run(task, client(handler), device)
    assert caught.value.problem.reason == "KeyReplyInvalid"


def test_a_corrupt_input_leaves_no_result(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    data = bytearray(task.sealed_input.read_bytes())
    data[-1] ^= 1
    task.sealed_input.write_bytes(data)
    with pytest.raises(SealedInputInvalid) as caught:
        run(task, client(service), device)
    assert caught.value.exit_code == 5
    assert not task.output.exists()


def command(task: GuestTask, *arguments: str) -> GuestTask:
    return GuestTask(task.resource, task.sealed_input, task.output, command=arguments)


def test_a_command_gets_the_plaintext(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    program = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    result = run(command(task, sys.executable, "-c", program), client(service), device)
    assert result["output"].strip() == result["sha256"] == hashlib.sha256(TEXT).hexdigest()


def test_a_command_may_stop_reading(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    result = run(command(task, "head", "-n", "1"), client(service), device)
    assert result["output"] == "one\n"
    assert result["bytes"] == len(TEXT)


@pytest.mark.parametrize(
    "arguments",
    [
        ("false",),
        ("/nonexistent/program",),
        (sys.executable, "-c", f"print('x' * {MAX_COMMAND_OUTPUT + 1})"),
        (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"),
    ],
)
def test_failing_commands(service: KeyService, device: TsmDevice, task: GuestTask, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandFailed) as caught:
        run(command(task, *arguments), client(service), device)
    assert caught.value.exit_code == 6
    assert not task.output.exists()


def test_the_command_dies_with_a_forged_input(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    data = bytearray(task.sealed_input.read_bytes())
    data[-1] ^= 1
    task.sealed_input.write_bytes(data)
    marker = task.output.parent / "finished"
    program = f"import sys, pathlib; sys.stdin.buffer.read(); pathlib.Path({str(marker)!r}).touch()"
    with pytest.raises(SealedInputInvalid):
        run(command(task, sys.executable, "-c", program), client(service), device)
    assert not marker.exists()
    assert not task.output.exists()


def test_files_that_cannot_be_used(service: KeyService, device: TsmDevice, task: GuestTask, tmp_path: Path) -> None:
    absent = GuestTask(NAME, tmp_path / "absent", task.output)
    with pytest.raises(FileFault):
        run(absent, client(service), device)
    nowhere = GuestTask(NAME, task.sealed_input, tmp_path / "no" / "folder" / "result.json")
    with pytest.raises(FileFault):
        run(nowhere, client(service), device)


@pytest.mark.parametrize("url", ["http://keys.example", "ftp://x", "keys:8443", "https://"])
def test_only_https(url: str) -> None:
    with pytest.raises(InvalidInput):
        KbsClient(url)


def test_no_key_bytes_in_any_fault(service: KeyService, device: TsmDevice, task: GuestTask) -> None:
    faults: list[BaseException] = []
    task.sealed_input.write_bytes(b"".join(seal(io.BytesIO(TEXT), bytes(32), NAME)))
    try:
        run(task, client(service), device)
    except SealedInputInvalid as error:
        faults.append(error)
    assert faults
    text = repr(faults[0]) + str(faults[0])
    for form in (KEY.hex(), base64.b64encode(KEY).decode(), repr(KEY)):
        assert form not in text


def test_exit_status_of_the_command_line(tmp_path: Path) -> None:
    """As the runner starts it: status 4 and a message, no traceback."""
    message = tmp_path / "message.json"
    arguments = ["--kbs-url", "https://127.0.0.1:1", "--resource", NAME, "--input", "x", "--output", "y"]
    arguments += ["--deadline", "0.2", "--termination-message", str(message)]
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.guest", "run", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "KEKKAI_TSM_ROOT": str(tmp_path / "absent")},
    )
    assert done.returncode == 4
    assert json.loads(message.read_text())["error"]["reason"] == "KeyServiceUnreachable"
    assert "Traceback" not in done.stderr


def test_no_device_is_status_seven(service: KeyService, task: GuestTask, tmp_path: Path) -> None:
    with pytest.raises(EvidenceUnavailable) as caught:
        run(task, client(service), TsmDevice(tmp_path / "absent"))
    assert caught.value.exit_code == 7
