"""`kekkai keys`: custodians, release policies, sealing and import of keys, and who got them.

Custodians' private keys and data keys stay on the machine that runs this; only signatures,
public keys and wrapped keys are sent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import key_lifecycle
from api.cli.ceremony import ceremony
from api.cli.collateral import collateral
from api.cli.custody import custodian, policy, sign
from api.cli.external_keys import external
from api.cli.key_options import (
    KEY_BYTES,
    Ca,
    KeyFiles,
    Output,
    PassphraseFile,
    TokenFile,
    Url,
    connect,
    load_keys,
    read_json,
    read_key,
    split_name,
    write_json,
)
from api.cli.output import Format, listing, show
from crds.errors import InvalidInput
from keymgmt.policy import custodian_keys, signing

app = typer.Typer(
    help="Custodians, release policies, sealing and import of keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with locals could show a key
)
app.add_typer(custodian, name="custodian")
app.add_typer(policy, name="policy")
app.add_typer(collateral, name="collateral")
app.add_typer(external, name="external")
app.add_typer(ceremony, name="ceremony")
app.command("sign")(sign)
app.command("list")(key_lifecycle.list_keys)
app.command("rotate")(key_lifecycle.rotate)
app.command("rewrap")(key_lifecycle.rewrap)
app.command("state")(key_lifecycle.set_state)


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
    key = read_key(key_file)
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
    version: Annotated[int, typer.Option(min=1, help="2 or more: rotate a key that was imported before.")] = 1,
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
    namespace, name = split_name(key)
    client = connect(url, ca, None)
    if order is not None:
        envelope = signing.open_document(read_json(order))
    else:
        if tenant is None or policy_digest is None or key_file is None:
            raise InvalidInput(
                "an order needs tenant, policy and key",
                where="--tenant, --policy-digest, --key-file",
                fix="give all three, or --order with a signed one",
            )
        document = signing.import_order(
            tenant, key, policy_digest, client.import_key(), read_key(key_file), kid, version
        )
        envelope = signing.sign_document(document, load_keys(sign_with, passphrase_file))
    if out is not None:
        write_json(out, envelope.as_dict())
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
    show(connect(url, ca, token_file).key(*split_name(key)), output)


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
    namespace, name = split_name(key) if key else (None, None)
    found: list[dict[str, Any]] = []
    for entry in connect(url, ca, token_file).releases(namespace, name):
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
    version: Annotated[int | None, typer.Option(min=1, help="Only this former version.")] = None,
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
    namespace, name = split_name(key)
    if order is not None:
        envelope = signing.open_document(read_json(order))
    else:
        if tenant is None or key_id is None:
            raise InvalidInput(
                "an order needs tenant and key id", where="--tenant, --key-id", fix="see `kekkai keys show`"
            )
        document = signing.destroy_order(tenant, key, key_id, reason, version)
        envelope = signing.sign_document(document, load_keys(sign_with, passphrase_file))
    if out is not None:
        write_json(out, envelope.as_dict())
        show({"order": str(out), "signatures": [keyid for keyid, _ in envelope.signatures]}, output)
        return
    if not yes:
        what = key if version is None else f"version {version} of {key}"
        typer.confirm(f"Destroy {what} for ever? Data sealed under it is lost.", abort=True)
    show(connect(url, ca, None).destroy(namespace, name, envelope), output)
