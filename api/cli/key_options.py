"""What the key commands share: their options, connecting, passphrases, reading and writing files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.output import Format
from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.broker.client import AdminClient
from keymgmt.policy import custodian_keys, signing
from keymgmt.policy.custodians import CustodianSet
from keymgmt.policy.dsse import Algorithm, Envelope, PrivateKey

Url = Annotated[str, typer.Option(envvar="KEKKAI_KEYS_URL", help="Key service, such as https://keys.example:8443.")]
Ca = Annotated[Path | None, typer.Option(envvar="KEKKAI_KEYS_CA", help="CA certificate of the key service, PEM.")]
TokenFile = Annotated[
    Path | None, typer.Option(envvar="KEKKAI_KEYS_TOKEN_FILE", help="File with the bearer token of your role.")
]
Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.")]
KeyFiles = Annotated[list[Path], typer.Option("--sign-with", help="Custodian's private key; repeat for more.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File with the passphrase of encrypted custodian keys; else it is asked for.")
]
MAX_DOCUMENT = 256 * 1024
KEY_BYTES = 32


def connect(url: str, ca: Path | None, token_file: Path | None) -> AdminClient:
    token = None
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except OSError as error:
            raise InvalidInput(f"cannot be read: {error.strerror}", where=str(token_file)) from None
    # How long to wait for a service that is just restarting, in seconds.
    return AdminClient(url, ca, token, patience=float(os.environ.get("KEKKAI_KEYS_PATIENCE", "10")))


def signed_set(wanted: CustodianSet, key_files: list[Path], passphrase_file: Path | None) -> Envelope:
    document = wanted.model_dump(mode="json", by_alias=True)
    return signing.sign_document(document, load_keys(key_files, passphrase_file))


def load_keys(files: list[Path], passphrase_file: Path | None) -> list[PrivateKey]:
    keys = []
    for path in files:
        passphrase = None
        if custodian_keys.is_encrypted(path):
            passphrase = read_passphrase(passphrase_file, f"Passphrase of {path}")
        keys.append(custodian_keys.load_private(path, passphrase))
    return keys


def new_passphrase(file: Path | None, question: str = "Passphrase for the new key") -> bytes:
    if file is not None:
        return read_passphrase(file, "")
    text: str = typer.prompt(question, hide_input=True, confirmation_prompt=True)
    return text.encode()


def read_passphrase(file: Path | None, question: str) -> bytes:
    if file is None:
        text: str = typer.prompt(question, hide_input=True)
        return text.encode()
    try:
        return file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(file)) from None


def known_algorithm(name: str) -> Algorithm:
    for known in ("ed25519", "ecdsa-p256", "ml-dsa-65"):
        if name == known:
            return known
    raise InvalidInput("unknown algorithm", where="--algorithm", fix="use ed25519, ecdsa-p256 or ml-dsa-65")


def split_name(key: str) -> tuple[str, str]:
    namespace, slash, name = key.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise InvalidInput("a key is namespace/name", where=key[:80])
    return namespace, name


def read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"a key has {KEY_BYTES} bytes", where=str(path), fix="make one with `kekkai keys seal`")
    return key


def read_bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > limit:
        raise InvalidInput(f"larger than {limit} bytes", where=str(path))
    return data


def read_json(path: Path) -> dict[str, Any]:
    data = read_bytes(path, MAX_DOCUMENT)
    return strict_json.parse_object(data, limit=MAX_DOCUMENT, where=str(path))


def write_json(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from None
