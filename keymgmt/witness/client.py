"""Reaches witnesses over HTTPS."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from crds.errors import InvalidInput, Unavailable
from keymgmt.transparency.witness_protocol import MAX_ANSWER, PATH, Answer


class HttpWitness:
    """One witness by its submission prefix; `http://` only to this machine. `ca` pins its certificate's issuer."""

    def __init__(self, url: str, ca: Path | None = None, *, timeout: float = 5.0) -> None:
        """Raises InvalidInput for a URL that is neither https nor on the loopback."""
        parsed = httpx.URL(url)
        if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.host in ("127.0.0.1", "localhost")):
            raise InvalidInput("a witness is reached by https", where=url[:200])
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        self._http = httpx.Client(verify=context, timeout=timeout, trust_env=False, follow_redirects=False)
        self._url = url.rstrip("/") + PATH

    def add_checkpoint(self, body: bytes) -> Answer:
        """POST; the answer's body is read to 64 KiB. Raises Unavailable."""
        try:
            with self._http.stream("POST", self._url, content=body) as response:
                content = b""
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER:
                        raise Unavailable("the witness's answer does not end", where=self._url)
                return Answer(response.status_code, content, response.headers.get("content-type", ""))
        except httpx.HTTPError as error:
            raise Unavailable(f"no answer: {type(error).__name__}", where=self._url) from None
