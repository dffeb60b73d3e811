"""`kekkai keys custodian` and `kekkai keys policy`: who speaks for keys, and what they sign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.key_options import (
    Ca,
    KeyFiles,
    Output,
    PassphraseFile,
    TokenFile,
    Url,
    connect,
    known_algorithm,
    load_keys,
    new_passphrase,
    read_bytes,
    read_json,
    signed_set,
    write_json,
)
from api.cli.output import Format, listing, show
from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.policy import custodian_keys, signing
from keymgmt.policy.custodians import parse_custodian_set
from keymgmt.policy.documents import parse_policy

custodian = typer.Typer(help="Custodians: the people who speak for a tenant's keys.", no_args_is_help=True)
policy = typer.Typer(help="Release policies: who may get a key, signed by custodians.", no_args_is_help=True)


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
    kind = known_algorithm(algorithm)
    passphrase = None if no_passphrase else new_passphrase(passphrase_file)
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
    client = connect(url, ca, token_file)
    if replaces is None:
        digest = client.register_custodians(wanted)
    else:
        digest = client.replace_custodians(tenant, signed_set(wanted, sign_with, passphrase_file))
    show({"tenant": tenant, "custodianSet": digest, "threshold": threshold, "of": len(public_keys)}, output)


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
    envelope = signing.sign_document(read_json(document), load_keys(sign_with, passphrase_file))
    write_json(out, envelope.as_dict())
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
    show(connect(url, ca, None).submit_policy(signing.open_document(read_json(envelope))), output)


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
        found = connect(url, ca, token_file).policy(what)
        document, signatures = found["policy"], found["envelope"]["signatures"]
        digest = found["digest"]
    else:
        envelope = signing.open_document(read_json(Path(what)))
        digest, signatures = signing.check(envelope), envelope.as_dict()["signatures"]
        document = strict_json.parse_object(envelope.payload)
    show({"digest": digest, **document, "signedBy": [item["keyid"] for item in signatures]}, output)


@policy.command("test")
def policy_test(
    document: Annotated[Path, typer.Argument(help="Policy (JSON) or signed envelope.")],
    evidence: Annotated[Path, typer.Option(help="Recorded evidence, from `kekkai guest evidence`.")],
    key: Annotated[str | None, typer.Option(help="namespace/name; the policy's first key without it.")] = None,
    tee: Annotated[str, typer.Option(help="Kind of TEE: snp, tdx, sgx, nitro or az-snp-vtpm.")] = "snp",
    config: Annotated[
        Path | None, typer.Option(help="The key service's configuration: its trust roots and what it demands.")
    ] = None,
    trust_root: Annotated[
        list[Path] | None, typer.Option(help="Folder with a root to trust beside the vendors', such as emulated ones.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Decide as of this time (RFC 3339); now without it.")] = None,
    used: Annotated[int, typer.Option(min=0, help="Releases already used.")] = 0,
    output: Output = Format.table,
) -> None:
    """Try a release policy on recorded evidence: would the guest get the key, and what differs if not.

    Offline; nothing is signed, released or counted. Exit status 0 when the key would be released, 1 when not.

    Example: kekkai keys policy test policy.json --evidence evidence.json --trust-root ./emulated-root
    """
    from datetime import UTC, datetime

    from keymgmt.broker.appraisal import Appraiser
    from keymgmt.broker.dry_run import MAX_EVIDENCE, dry_run
    from keymgmt.config import Attestation, load

    settings = load(config).attestation if config else Attestation()
    if trust_root:
        roots = (*settings.local_trust_roots, *(path.resolve() for path in trust_root))
        settings = settings.model_copy(update={"local_trust_roots": roots})
    envelope = signing.sign_document(read_json(document), [])
    signed = parse_policy(envelope)
    moment = datetime.now(UTC)
    if at is not None:
        try:
            moment = datetime.fromisoformat(at).astimezone(UTC)
        except ValueError:
            raise InvalidInput("not a time", where="--at", fix="such as 2026-11-24T09:00:00Z") from None
    body = read_bytes(evidence, MAX_EVIDENCE)
    found = dry_run(signed.policy, key or signed.policy.keys[0], body, tee, Appraiser(settings), moment, used)
    if output is Format.json:
        show({"digest": signed.digest, **found.as_dict()}, output)
    else:
        verdict = "released" if found.decision.allowed else f"refused: {found.decision.reason}"
        show({"digest": signed.digest, "key": key or signed.policy.keys[0], "verdict": verdict}, output)
        rows = [{"": "\u2713" if c.holds else "\u2717", "condition": c.text, "seen": c.seen} for c in found.conditions]
        if rows:
            listing(rows, ("", "condition", "seen"), output)
        elif found.decision.details:
            typer.echo(found.decision.details[0])
    if not found.decision.allowed:
        raise typer.Exit(1)
