"""`kekkai keys external`: a custodian's own key service, for keys that never leave it (HYOK)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

external = typer.Typer(help="A custodian's own key service, for keys that stay there (HYOK).", no_args_is_help=True)


@external.command("serve")
def serve(
    config: Annotated[Path, typer.Option(help="Configuration, YAML or JSON.")],
    check: Annotated[bool, typer.Option("--check", help="Only validate the configuration and the keys.")] = False,
) -> None:
    """Answer a key service's requests for keys that you hold, each proven by its log.

    The configuration names the TLS certificate, the key service's JWKS and log key (learned on a safe way),
    a ledger file, and for each key its file and what you agree to:

    \b
      tls: {certificate: tls.crt, key: tls.key}
      jwks: jwks.json          # the key service's /.well-known/jwks.json
      logKey: log.vkey         # the key service's /log/vkey
      ledger: served.sqlite
      keys:
        - key: aurora-train/dataset
          file: dataset.key    # 32 bytes, mode 0600
          policies: ["sha256:…"]
          maxReleases: 64

    Example: kekkai keys external serve --config external.yaml
    """
    from keymgmt.external import server

    settings = server.load(config)
    if check:
        server.create_app(settings)
        typer.echo(f"{config}: {len(settings.keys)} keys, all usable")
        return
    typer.echo(f"holding {len(settings.keys)} keys at https://{settings.listen.host}:{settings.listen.port}")
    server.serve(settings)
