"""The guest's side of the KBS protocol 0.4.0 (confidential-containers/trustee), over HTTPS.

`authenticate` gets a challenge, `attest` answers it, `resource` fetches a wrapped key; each
call retries what may pass (no connection, 429, 5xx) with growing, jittered pauses until the
client's deadline, and never retries a refusal. The session cookie is kept between calls.
"""

from __future__ import annotations

import hashlib
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.guest.errors import FileFault, KeyRefused, KeyServiceUnreachable

VERSION: Final = "0.4.0"
HASHES: Final = {"sha256": "sha256", "sha384": "sha384", "sha512": "sha512"}
MAX_REPLY: Final = 1 << 20
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
SESSION_ENDED: Final = frozenset({"TokenNotFound", "TokenVerifierError"})
_ENDED_TRANSIT: Final = frozenset({"Unauthenticated", "TokenExpired", "TokenInvalid"})


@dataclass(frozen=True, slots=True)
class Challenge:
    """The service's nonce (base64 text) and the hash that binds it into REPORT_DATA."""

    nonce: str
    hash_name: str


class SessionEnded(KeyRefused):
    """The service does not know this session (any more): shake hands again."""

    reason = "SessionEnded"


def report_data(challenge: Challenge, tee_pubkey: Mapping[str, Any], additional_evidence: str) -> bytes:
    """The digest for REPORT_DATA: hash of the canonical JSON of additional-evidence, nonce, tee-pubkey."""
    bound = {
        "additional-evidence": additional_evidence,
        "nonce": challenge.nonce,
        "tee-pubkey": dict(tee_pubkey),
    }
    return hashlib.new(challenge.hash_name, strict_json.canonical(bound)).digest()


def attest_body(
    challenge: Challenge,
    tee_pubkey: Mapping[str, Any],
    primary_evidence: Mapping[str, Any],
    additional_evidence: str,
    init_data: str | None,
) -> dict[str, Any]:
    """The body of an attest request."""
    body: dict[str, Any] = {
        "runtime-data": {"nonce": challenge.nonce, "tee-pubkey": dict(tee_pubkey)},
        "tee-evidence": {"primary_evidence": primary_evidence, "additional_evidence": additional_evidence},
    }
    if init_data is not None:
        body["init-data"] = {"format": "toml", "body": init_data}
    return body


class KbsClient:
    """One guest's connection. `deadline` is in seconds of `clock` from now; tests inject the rest."""

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        deadline: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = _checked(url)
        self._clock, self._sleep = clock, sleep
        self._ends = clock() + deadline
        self._http = httpx.Client(
            transport=transport,
            verify=_tls(ca_file),
            timeout=httpx.Timeout(35.0, connect=5.0),
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Drop the connection and the session cookie."""
        self._http.close()

    def authenticate(self, tee: str) -> Challenge:
        """POST /auth: begin a session. Raises KeyRefused, KeyServiceUnreachable."""
        self._http.cookies.clear()
        offered = {"supported-hash-algorithms": list(HASHES)}
        reply = self._call("POST", "/kbs/v0/auth", {"version": VERSION, "tee": tee, "extra-params": offered})
        nonce, extra = reply.get("nonce"), reply.get("extra-params")
        if not isinstance(nonce, str) or not 0 < len(nonce) <= 1024:
            raise KeyRefused("the challenge has no nonce", reason="ChallengeInvalid")
        selected = extra.get("selected-hash-algorithm", "sha384") if isinstance(extra, dict) else "sha384"
        name = HASHES.get(str(selected).lower().replace("-", ""))
        if name is None:
            raise KeyRefused("the service selected a hash that is not known here", reason="ChallengeInvalid")
        return Challenge(nonce, name)

    def attest(
        self,
        challenge: Challenge,
        tee_pubkey: Mapping[str, Any],
        primary_evidence: Mapping[str, Any],
        *,
        additional_evidence: str = "",
        init_data: str | None = None,
    ) -> str:
        """POST /attest: answer the challenge; returns the EAR token (a JWT)."""
        body = attest_body(challenge, tee_pubkey, primary_evidence, additional_evidence, init_data)
        token = self._call("POST", "/kbs/v0/attest", body).get("token")
        if not isinstance(token, str):
            raise KeyRefused("the reply has no token", reason="TokenMissing")
        return token

    def resource(self, name: str) -> dict[str, Any]:
        """GET /resource/{name}: a flattened JWE. Raises SessionEnded when a new handshake may help."""
        return self._call("GET", f"/kbs/v0/resource/{name}", None)

    def transit(self, key: str, operation: str, body: Mapping[str, Any], token: str) -> dict[str, Any]:
        """POST /v1/transit/{key}/{operation} with a session's token; `key` is namespace/name."""
        return self._call("POST", f"/v1/transit/{key}/{operation}", body, token)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None = None) -> dict[str, Any]:
        pause, fault, answer_lost = FIRST_PAUSE, "no attempt was made", False
        while self._clock() < self._ends:
            try:
                status, data = self._exchange(method, path, body, token)
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {str(error)[:200]}"
                answer_lost = True
            else:
                if status == 200:
                    return _parsed(data, path)
                if status != 429 and status < 500:
                    refusal = _refusal(status, data, path)
                    if answer_lost and path.endswith("/attest"):
                        # An earlier try may have been taken although its answer never came: the challenge
                        # is used up then, which says nothing about this guest. A new one decides.
                        raise SessionEnded(refusal.problem.what, where=path, reason=refusal.problem.reason)
                    raise refusal
                fault = f"HTTP status {status}: {_error(data)[1]}"
            left = self._ends - self._clock()
            self._sleep(max(0.0, min(pause * random.uniform(0.5, 1.0), left)))  # noqa: S311 - jitter, not secret
            pause = min(pause * 2, LONGEST_PAUSE)
        raise KeyServiceUnreachable(
            f"no decision before the deadline; last: {fault}",
            where=f"{self._url}{path}",
            fix="check that the key service runs, its address and --ca",
        )

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {} if content is None else {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        with self._http.stream(method, self._url + path, content=content, headers=headers) as response:
            data = bytearray()
            for part in response.iter_bytes():
                data += part
                if len(data) > MAX_REPLY:
                    raise KeyRefused(f"the reply is longer than {MAX_REPLY} bytes", reason="ReplyTooLarge", where=path)
            return response.status_code, bytes(data)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if (parts.scheme != "https" and not loopback) or not parts.hostname:
        raise InvalidInput("the key service is reached by https only", where="--kbs-url", fix="give https://host:port")
    return url.rstrip("/")


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise FileFault(f"the CA file cannot be used: {error}", where=str(ca_file)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _parsed(data: bytes, path: str) -> dict[str, Any]:
    try:
        return strict_json.parse_object(data, limit=MAX_REPLY, where=path)
    except InvalidInput as error:
        raise KeyRefused(f"the reply is malformed: {error.problem.what}", reason="ReplyMalformed", where=path) from None


def _error(data: bytes) -> tuple[str, str]:
    """Variant and detail of a KBS error reply; empty and a stand-in if it is none."""
    try:
        reply = strict_json.parse_object(data, limit=MAX_REPLY)
    except InvalidInput:
        return "", "no KBS error in the reply"
    variant = str(reply.get("type") or reply.get("reason", "")).rpartition("/")[2]
    return variant[:64], str(reply.get("detail") or reply.get("what", ""))[:1024]


def _refusal(status: int, data: bytes, path: str) -> KeyRefused:
    variant, detail = _error(data)
    ended = (variant in SESSION_ENDED and "/resource/" in path) or (variant in _ENDED_TRANSIT and "/transit/" in path)
    kind = SessionEnded if ended else KeyRefused
    return kind(
        detail or f"HTTP status {status}",
        reason=variant or "KeyRefused",
        where=path,
        fix="the key's owner reads why in the release log",
    )
