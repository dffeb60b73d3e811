"""`kekkai keys ceremony`: make the token so that only several people together can open it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.key_options import Output, new_passphrase, read_json, read_passphrase, write_json
from api.cli.output import Format, show
from crds.errors import Conflict, InvalidInput
from keymgmt.policy.custodian_keys import write_private

ceremony = typer.Typer(help="The key ceremony: the token's PIN, held M of N.", no_args_is_help=True)
PassphraseFiles = Annotated[
    list[Path] | None,
    typer.Option("--passphrase-file", help="Instead of prompting: one file a holder, in their order."),
]


@ceremony.command("begin")
def begin(
    config: Annotated[Path, typer.Option(help="The key service's configuration; hsm.pinFile must be set.")],
    holder: Annotated[list[str], typer.Option(help="Name of a share's holder; give it once for each.")],
    threshold: Annotated[int, typer.Option(help="How many of them open the token.")],
    out: Annotated[Path, typer.Option(help="Folder for the shares and the transcript.")],
    passphrase_file: PassphraseFiles = None,
    output: Output = Format.table,
) -> None:
    """Make the embedded token with a PIN that is split at once, and write the transcript.

    Each holder types a passphrase and takes their share file away; then everybody signs the transcript:
    kekkai keys sign transcript.json --sign-with alice.key --out transcript.json

    Example: kekkai keys ceremony begin --config keys.yaml --holder alice --holder bob --holder carol
    --threshold 2 --out ./ceremony
    """
    from keymgmt.config import load
    from keymgmt.hsm import ceremony as rite
    from keymgmt.hsm.pkcs11_session import Pkcs11Session
    from keymgmt.hsm.token import TokenSettings, locate

    settings = load(config)
    pin_file = settings.hsm.pin_file
    if not settings.hsm.embedded or pin_file is None:
        raise InvalidInput(
            "the ceremony makes the embedded token",
            where="hsm",
            fix="set hsm.pinFile to a place in memory, such as /run/kekkai/pin; a vendor's HSM has its own ceremony",
        )
    tokens = settings.data_dir / "hsm" / "tokens"
    if pin_file.exists() or (tokens.exists() and any(tokens.iterdir())):
        raise Conflict("there is a token already", where=str(tokens), fix="begin with an empty data folder")
    pin = rite.make_pin()
    shares = rite.split(pin, threshold, holder)
    files = passphrase_file or []
    if files and len(files) != len(holder):
        raise InvalidInput("one file a holder is expected", where="--passphrase-file")
    locked: list[tuple[Path, dict[str, Any]]] = []
    for number, share in enumerate(shares):
        path = out / f"share-{share.index}-{share.holder}.json"
        passphrase = new_passphrase(files[number] if files else None, f"Passphrase of {share.holder}")
        locked.append((path, rite.lock(share, passphrase)))
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    pin_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(pin_file, pin.encode())
    try:
        session = Pkcs11Session(locate(TokenSettings(**settings.hsm.token_settings()), settings.data_dir), ())
        wrapping = session.import_key()
        facts = {
            "hsm": session.capabilities.as_dict(),
            "tokenSigningKey": session.ear_public_key().hex(),
            "logKey": session.log_public_key().hex(),
            "importKey": {"kid": wrapping.kid, "algorithm": wrapping.algorithm},
        }
    finally:
        pin_file.unlink()
    document = rite.transcript(shares, pin, facts, datetime.now(UTC))
    for path, content in locked:
        write_json(path, content)
        path.chmod(0o600)
    write_json(out / "transcript.json", document)
    show(
        {
            "ceremony": document["ceremony"],
            "threshold": f"{threshold} of {len(holder)}",
            "shares": [str(path) for path, _ in locked],
            "transcript": str(out / "transcript.json"),
            "importKey": wrapping.kid,
        },
        output,
    )


@ceremony.command("open")
def open_token(
    shares: Annotated[list[Path], typer.Argument(help="Share files, as many as the threshold.")],
    transcript: Annotated[Path, typer.Option(help="Transcript of the ceremony, signed or not.")],
    pin_out: Annotated[Path, typer.Option(help="hsm.pinFile of the key service, best in memory.")],
    passphrase_file: PassphraseFiles = None,
    output: Output = Format.table,
) -> None:
    """Put the PIN together for a start of the key service; each holder types their passphrase.

    Remove the PIN file when the service is up: it is read at its start and by each new worker only, so keep it in
    memory that a reboot empties.

    Example: kekkai keys ceremony open share-1-alice.json share-3-carol.json --transcript transcript.json
    --pin-out /run/kekkai/pin
    """
    from keymgmt import strict_json
    from keymgmt.hsm import ceremony as rite
    from keymgmt.policy import signing

    document = strict_json.parse_object(signing.open_document(read_json(transcript)).payload)
    files = passphrase_file or []
    if files and len(files) != len(shares):
        raise InvalidInput("one file a share is expected", where="--passphrase-file")
    opened = []
    for number, path in enumerate(shares):
        content = read_json(path)
        who = str(content.get("holder", path))[:64]
        opened.append(rite.unlock(content, read_passphrase(files[number] if files else None, f"Passphrase of {who}")))
    pin = rite.combine(opened, document)
    pin_out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(pin_out, pin.encode())
    show({"ceremony": document["ceremony"], "pinFile": str(pin_out)}, output)
