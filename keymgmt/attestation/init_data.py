"""Init-data: what a guest is told at launch, bound by its digest to HOST_DATA.

Source: confidential-containers/trustee kbs/docs/initdata.md: a TOML document with
`version`, `algorithm` (sha256, sha384, sha512) and `data`; SNP's HOST_DATA holds the
digest cut or padded with zeros to 32 bytes. The host chooses HOST_DATA, so the document is
a claim of the launch, never proof of who launched it.
"""

from __future__ import annotations

import hashlib
import tomllib
from typing import Any, Final

from keymgmt.attestation.refusal import refuse

MAX_INIT_DATA_BYTES: Final = 1 << 18
HOST_DATA_BYTES: Final = 32
_ALGORITHMS: Final = {"sha256", "sha384", "sha512"}


def parse_init_data(body: str) -> dict[str, Any]:
    """The document as a dict. Raises InitDataMalformed."""
    if len(body) > MAX_INIT_DATA_BYTES:
        raise refuse("InitDataMalformed", f"more than {MAX_INIT_DATA_BYTES} characters", where="init-data")
    try:
        document = tomllib.loads(body)
    except (tomllib.TOMLDecodeError, RecursionError):
        raise refuse("InitDataMalformed", where="init-data") from None
    algorithm = str(document.get("algorithm", "")).lower().replace("-", "")
    if algorithm not in _ALGORITHMS:
        raise refuse("InitDataMalformed", "algorithm is not sha256, sha384 or sha512", where="init-data")
    return {**document, "algorithm": algorithm}


def init_data_digest(body: str) -> bytes:
    """Digest of the document's exact text under the algorithm that it names, at full length."""
    algorithm = parse_init_data(body)["algorithm"]
    return hashlib.new(algorithm, body.encode()).digest()


def host_data_of(digest: bytes) -> bytes:
    """The 32 bytes that stand in SNP's HOST_DATA for an init-data digest."""
    return digest[:HOST_DATA_BYTES].ljust(HOST_DATA_BYTES, b"\0")
