"""`kekkai keys`: custodians, release policies, sealing and import of keys, and who got them.

Custodians' private keys and data keys stay on the machine that runs this; only signatures,
public keys and wrapped keys are sent.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.output import Format, listing, show
from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.broker.client import AdminClient
from keymgmt.policy import custodian_keys, signing
from keymgmt.policy.custodians import CustodianSet, parse_custodian_set
from keymgmt.policy.dsse import Algorithm, Envelope, PrivateKey

app = typer.Typer(
    help="Custodians, release policies, sealing and import of keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with locals could show a key
)
custodian = typer.Typer(help="Custodians: the people who speak for a tenant's keys.", no_args_is_help=True)
policy = typer.Typer(help="Release policies: who may get a key, signed by custodians.", no_args_is_help=True)
app.add_typer(custodian, name="custodian")
app.add_typer(policy, name="policy")

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


@custodian.command("new")
def custodian_new(
    out: Annotated[Path, typer.Option(help="Private key file to make; the public one gets .pub appended.")],
    algorithm: Annotated[str, typer.Option(help="ed25519, ecdsa-p256 or ml-dsa-65 (post-quantum).")] = "ed25519",
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the file unencrypted.")] = False,
    output: Output = Format.table,
) -> None:
    """Make a custodian's key pair.

    Example: kekkai keys custodian new --out alice.key
    """
    kind = _algorithm(algorithm)
    passphrase = None if no_passphrase else _new_passphrase(passphrase_file)
    private = custodian_keys.generate(kind)
    public = custodian_keys.save(private, out, passphrase)
    keyid = custodian_keys.keyid_of(private)
    show({"keyid": keyid, "algorithm": algorithm, "privateKey": str(out), "publicKey": str(public)}, output)


@custodian.command("register")
def custodian_register(
    url: Url,
    tenant: Annotated[str, typer.Option(help="Tenant whose keys they guard.")],
    public_keys: Annotated[list[Path], typer.Argument(help="The custodians' .pub files.")],
    threshold: Annotated[int, typer.Option(help="How many of them must sign.")] = 1,
    replaces: Annotated[str | None, typer.Option(help="Digest of the set that this one replaces.")] = None,
    sign_with: KeyFiles = [],  # noqa: B006 - typer reads the default, nobody changes it
    passphrase_file: PassphraseFile = None,
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """Register a tenant's custodians, or replace them by their own quorum (role registrar).

    Example: kekkai keys custodian register --tenant aurora --threshold 2 alice.key.pub bob.key.pub carol.key.pub

    To replace: add --replaces DIGEST --sign-with OLD-KEY for each custodian of the old quorum.
    """
    document = {
        "tenant": tenant,
        "threshold": threshold,
        "custodians": [custodian_keys.load_custodian(path).model_dump(by_alias=True) for path in public_keys],
        "replaces": replaces,
    }
    wanted = parse_custodian_set(document)
    client = _client(url, ca, token_file)
    if replaces is None:
        digest = client.register_custodians(wanted)
    else:
        digest = client.replace_custodians(tenant, _signed_set(wanted, sign_with, passphrase_file))
    show({"tenant": tenant, "custodianSet": digest, "threshold": threshold, "of": len(public_keys)}, output)


@app.command("sign")
@policy.command("sign")
def sign(
    document: Annotated[Path, typer.Argument(help="Policy, order or custodian set (JSON), or an envelope to add to.")],
    sign_with: KeyFiles,
    out: Annotated[Path, typer.Option(help="Envelope to write; may be the same file.")],
    passphrase_file: PassphraseFile = None,
    output: Output = Format.table,
) -> None:
    """Sign a document as custodian. Pass the result on to the next one, until the quorum has signed.

    Example: kekkai keys policy sign policy.json --sign-with alice.key --out policy.dsse.json
    """
    envelope = signing.sign_document(_read_json(document), _load_keys(sign_with, passphrase_file))
    _write_json(out, envelope.as_dict())
    signers = [keyid for keyid, _ in envelope.signatures]
    show({"digest": signing.check(envelope), "signatures": signers, "envelope": str(out)}, output)


@policy.command("submit")
def policy_submit(
    url: Url,
    envelope: Annotated[Path, typer.Argument(help="Signed policy, from `policy sign`.")],
    ca: Ca = None,
    output: Output = Format.table,
) -> None:
    """File a signed policy with the key service; prints the digest that a ProtectedKey names.

    Example: kekkai keys policy submit policy.dsse.json --url https://keys.example:8443
    """
    show(_client(url, ca, None).submit_policy(signing.open_document(_read_json(envelope))), output)


@policy.command("show")
def policy_show(
    what: Annotated[str, typer.Argument(help="Digest (sha256:…), or a file: policy or envelope.")],
    url: Annotated[str | None, typer.Option(envvar="KEKKAI_KEYS_URL", help="Key service, for a digest.")] = None,
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """Show a policy with its digest and who signed it.

    Example: kekkai keys policy show policy.dsse.json
    """
    if what.startswith("sha256:"):
        if url is None:
            raise InvalidInput("a digest is looked up at the key service", where="--url", fix="give --url")
        found = _client(url, ca, token_file).policy(what)
        document, signatures = found["policy"], found["envelope"]["signatures"]
        digest = found["digest"]
    else:
        envelope = signing.open_document(_read_json(Path(what)))
        digest, signatures = signing.check(envelope), envelope.as_dict()["signatures"]
        document = strict_json.parse_object(envelope.payload)
    show({"digest": digest, **document, "signedBy": [item["keyid"] for item in signatures]}, output)


@app.command("seal")
def seal(
    resource: Annotated[str, typer.Option(help="Key that opens it, as guests ask for it: namespace/key/name.")],
    source: Annotated[Path, typer.Option("--input", help="Data set to encrypt.")],
    sealed: Annotated[Path, typer.Option("--out", help="Sealed input to write.")],
    key_file: Annotated[Path, typer.Option(help="Key (32 bytes): made (mode 0600) unless it exists.")],
    output: Output = Format.table,
) -> None:
    """Encrypt a data set under a key that you hold; import that key afterwards.

    Example: kekkai keys seal --resource aurora-train/key/dataset --input data.csv --out data.sealed
    --key-file dataset.key
    """
    from keymgmt.guest.sealed_input import RESOURCE
    from keymgmt.guest.sealed_input import seal as seal_stream

    if not RESOURCE.fullmatch(resource):
        raise InvalidInput("not a resource name", where="--resource", fix="use namespace/key/name")
    fresh = not key_file.exists()
    if fresh:
        custodian_keys.write_private(key_file, os.urandom(KEY_BYTES))
    key = _read_key(key_file)
    temporary = sealed.with_name(f".{sealed.name}.{os.getpid()}.tmp")
    try:
        with source.open("rb") as plain, temporary.open("wb") as target:
            for chunk in seal_stream(plain, key, resource):
                target.write(chunk)
        temporary.replace(sealed)
    except OSError as error:
        raise InvalidInput(f"cannot be sealed: {error.strerror}", where=str(error.filename or source)) from None
    finally:
        temporary.unlink(missing_ok=True)
    facts = {"resource": resource, "sealed": str(sealed), "bytes": sealed.stat().st_size}
    show({**facts, "keyFile": str(key_file), "keyMade": fresh}, output)


@app.command("import")
def import_key(
    url: Url,
    key: Annotated[str, typer.Argument(help="namespace/name of the ProtectedKey, whose origin is import.")],
    tenant: Annotated[str | None, typer.Option(help="Tenant of the key.")] = None,
    policy_digest: Annotated[str | None, typer.Option(help="Digest of the policy in force.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The key's 32 bytes, from `keys seal`.")] = None,
    sign_with: KeyFiles = [],  # noqa: B006
    passphrase_file: PassphraseFile = None,
    kid: Annotated[str | None, typer.Option(help="Fingerprint of the import key, learned on another way.")] = None,
    order: Annotated[Path | None, typer.Option(help="Submit this signed order instead of making one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the order for others to sign; do not submit.")] = None,
    ca: Ca = None,
    output: Output = Format.table,
) -> None:
    """Bring your own key: wrap it to the HSM, sign the order as custodians, submit it.

    Example: kekkai keys import aurora-train/dataset --tenant aurora --policy-digest sha256:… --key-file
    dataset.key --sign-with alice.key

    With several custodians on several machines: --out order.json here, `kekkai keys sign
    order.json` at each of them, then --order order.json.
    """
    namespace, name = _split(key)
    client = _client(url, ca, None)
    if order is not None:
        envelope = signing.open_document(_read_json(order))
    else:
        if tenant is None or policy_digest is None or key_file is None:
            raise InvalidInput(
                "an order needs tenant, policy and key",
                where="--tenant, --policy-digest, --key-file",
                fix="give all three, or --order with a signed one",
            )
        document = signing.import_order(tenant, key, policy_digest, client.import_key(), _read_key(key_file), kid)
        envelope = signing.sign_document(document, _load_keys(sign_with, passphrase_file))
    if out is not None:
        _write_json(out, envelope.as_dict())
        show({"order": str(out), "signatures": [keyid for keyid, _ in envelope.signatures]}, output)
        return
    show(client.submit_import(namespace, name, envelope), output)


@app.command("show")
def show_key(
    url: Url,
    key: Annotated[str, typer.Argument(help="namespace/name.")],
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """Show a key: state, policy, how often it was released (role operator or auditor).

    Example: kekkai keys show aurora-train/dataset
    """
    show(_client(url, ca, token_file).key(*_split(key)), output)


@app.command("releases")
def releases(
    url: Url,
    key: Annotated[str | None, typer.Argument(help="namespace/name; all keys without it.")] = None,
    denials: Annotated[bool, typer.Option(help="Also show refusals, with their reasons.")] = True,
    last: Annotated[int, typer.Option(help="At most this many, newest first.")] = 50,
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """Show who got a key, who was refused, and why (role auditor).

    Example: kekkai keys releases aurora-train/dataset -o json
    """
    namespace, name = _split(key) if key else (None, None)
    found: list[dict[str, Any]] = []
    for entry in _client(url, ca, token_file).releases(namespace, name):
        if len(found) == last:
            break
        if denials or entry["type"] == "release":
            found.append(entry)
    columns = ("index", "at", "type", "key", "reason", "details", "count", "measurement", "root")
    listing(found, columns, output)


@app.command("destroy")
def destroy(
    url: Url,
    key: Annotated[str, typer.Argument(help="namespace/name.")],
    tenant: Annotated[str | None, typer.Option(help="Tenant of the key.")] = None,
    key_id: Annotated[str | None, typer.Option(help="keyId from `keys show`: pins the very key meant.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it goes into the log.")] = "",
    sign_with: KeyFiles = [],  # noqa: B006
    passphrase_file: PassphraseFile = None,
    order: Annotated[Path | None, typer.Option(help="Submit this signed order instead of making one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the order for others to sign; do not submit.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ca: Ca = None,
    output: Output = Format.table,
) -> None:
    """Destroy a key for ever, by its custodians' quorum. Data sealed under it is lost.

    Example: kekkai keys destroy aurora-train/dataset --tenant aurora --key-id aurora-train/dataset/0f3c…
    --sign-with alice.key
    """
    namespace, name = _split(key)
    if order is not None:
        envelope = signing.open_document(_read_json(order))
    else:
        if tenant is None or key_id is None:
            raise InvalidInput(
                "an order needs tenant and key id", where="--tenant, --key-id", fix="see `kekkai keys show`"
            )
        document = signing.destroy_order(tenant, key, key_id, reason)
        envelope = signing.sign_document(document, _load_keys(sign_with, passphrase_file))
    if out is not None:
        _write_json(out, envelope.as_dict())
        show({"order": str(out), "signatures": [keyid for keyid, _ in envelope.signatures]}, output)
        return
    if not yes:
        typer.confirm(f"Destroy {key} for ever? Data sealed under it is lost.", abort=True)
    show(_client(url, ca, None).destroy(namespace, name, envelope), output)


def _client(url: str, ca: Path | None, token_file: Path | None) -> AdminClient:
    token = None
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except OSError as error:
            raise InvalidInput(f"cannot be read: {error.strerror}", where=str(token_file)) from None
    # How long to wait for a service that is just restarting, in seconds.
    return AdminClient(url, ca, token, patience=float(os.environ.get("KEKKAI_KEYS_PATIENCE", "10")))


def _signed_set(wanted: CustodianSet, key_files: list[Path], passphrase_file: Path | None) -> Envelope:
    document = wanted.model_dump(mode="json", by_alias=True)
    return signing.sign_document(document, _load_keys(key_files, passphrase_file))


def _load_keys(files: list[Path], passphrase_file: Path | None) -> list[PrivateKey]:
    keys = []
    for path in files:
        passphrase = None
        if custodian_keys.is_encrypted(path):
            passphrase = _passphrase(passphrase_file, f"Passphrase of {path}")
        keys.append(custodian_keys.load_private(path, passphrase))
    return keys


def _new_passphrase(file: Path | None) -> bytes:
    if file is not None:
        return _passphrase(file, "")
    text: str = typer.prompt("Passphrase for the new key", hide_input=True, confirmation_prompt=True)
    return text.encode()


def _passphrase(file: Path | None, question: str) -> bytes:
    if file is None:
        text: str = typer.prompt(question, hide_input=True)
        return text.encode()
    try:
        return file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(file)) from None


def _algorithm(name: str) -> Algorithm:
    for known in ("ed25519", "ecdsa-p256", "ml-dsa-65"):
        if name == known:
            return known
    raise InvalidInput("unknown algorithm", where="--algorithm", fix="use ed25519, ecdsa-p256 or ml-dsa-65")


def _split(key: str) -> tuple[str, str]:
    namespace, slash, name = key.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise InvalidInput("a key is namespace/name", where=key[:80])
    return namespace, name


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"a key has {KEY_BYTES} bytes", where=str(path), fix="make one with `kekkai keys seal`")
    return key


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    return strict_json.parse_object(data, limit=MAX_DOCUMENT, where=str(path))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from None
