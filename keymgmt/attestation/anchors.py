"""Trusted roots by certificate: SHA-256 of the DER (hex) → label, as the Intel and Nitro verifiers pin them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from crds.errors import InvalidInput

MAX_ROOT_BYTES: Final = 64 * 1024


def anchors_with(builtin: Mapping[str, str], files: Iterable[Path]) -> dict[str, str]:
    """`builtin` and each root certificate (PEM or DER) in `files`, labelled `local:<file name>`.

    Raises InvalidInput for a file that is not a certificate.
    """
    anchors = dict(builtin)
    for path in files:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_ROOT_BYTES)
            pem = data.startswith(b"-----BEGIN")
            certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        except (OSError, ValueError):
            raise InvalidInput("not a certificate in PEM or DER", where=str(path)) from None
        anchors[hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()] = f"local:{path.stem}"
    return anchors
