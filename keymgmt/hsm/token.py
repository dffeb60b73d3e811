"""Finding the PKCS#11 library and making the embedded SoftHSM2 token on first start."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pkcs11

from crds.errors import InvalidInput
from keymgmt.hsm.protocol import HsmError

SOFTHSM_CONF = "SOFTHSM2_CONF"


DEFAULT_PKCS11_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The configuration's `hsm` section as plain data: the worker starts fast without its validators."""

    library: str | None = None
    label: str = "kekkai"
    pin_file: str | None = None
    embedded: bool = True
    avoid: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where the token is and how to log in."""

    library: Path
    label: str
    pin: str
    token_folder: Path | None  # the embedded SoftHSM's, which we must make durable ourselves


def locate(config: TokenSettings, data_dir: Path) -> TokenPlace:
    """Resolve the configuration; for the embedded default also set SOFTHSM2_CONF and make the token.

    Call before the library is loaded: SoftHSM reads its configuration once.
    """
    known = [config.library] if config.library else DEFAULT_PKCS11_LIBRARIES
    library = next((Path(path) for path in known if Path(path).exists()), None)
    if library is None:
        raise HsmError("no PKCS#11 library found", where="hsm.library", fix="install softhsm2 or set hsm.library")
    if not config.embedded:
        assert config.pin_file is not None  # the configuration's validator saw to it
        return TokenPlace(library, config.label, _read_pin(Path(config.pin_file)), None)
    folder = data_dir / "hsm"
    pin_file = Path(config.pin_file) if config.pin_file else folder / "pin"
    with _locked(folder):
        _write_softhsm_conf(folder)
        _make_token(library, config.label, folder, pin_file)
    return TokenPlace(library, config.label, _read_pin(pin_file), folder / "tokens")


@contextmanager
def locked(place: TokenPlace) -> Iterator[None]:
    """Exclude other processes of ours from making keys in an embedded token; elsewhere no lock is had."""
    if place.token_folder is None:
        yield
        return
    with _locked(place.token_folder.parent):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_softhsm_conf(folder: Path) -> None:
    tokens, conf = folder / "tokens", folder / "softhsm2.conf"
    tokens.mkdir(mode=0o700, exist_ok=True)
    wanted = f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
    if not conf.exists() or conf.read_text() != wanted:
        _write_private(conf, wanted)
    os.environ[SOFTHSM_CONF] = str(conf)


def _make_token(library: Path, label: str, folder: Path, pin_file: Path) -> None:
    """Initialise the embedded token once. The marker file tells a half-made token from a lost PIN."""
    marker, tokens = folder / "initialising", folder / "tokens"
    if pin_file.exists() and not marker.exists() and any(tokens.iterdir()):
        return
    if any(tokens.iterdir()) and not marker.exists():
        raise HsmError("the token's PIN file is gone", where=str(pin_file), fix="restore it from a backup")
    marker.touch()
    for entry in tokens.iterdir():
        shutil.rmtree(entry)  # left by an initialisation that never finished; holds no keys
    tool = shutil.which("softhsm2-util")
    if tool is None:
        raise HsmError("softhsm2-util is not installed", where="hsm", fix="install the softhsm2 package")
    # These PINs stand on a command line for a moment, so the user PIN is changed right after,
    # and the security officer's is forgotten.
    first, officer = secrets.token_hex(16), secrets.token_hex(16)
    command = [tool, "--module", str(library), "--init-token", "--free", "--label", label]
    done = subprocess.run([*command, "--pin", first, "--so-pin", officer], capture_output=True, check=False)
    if done.returncode:
        raise HsmError("the token could not be initialised", where="hsm", fix=done.stderr.decode()[-200:])
    pin = pin_file.read_text().strip() if pin_file.exists() else secrets.token_urlsafe(24)
    with pkcs11.lib(str(library)).get_token(token_label=label).open(rw=True, user_pin=first) as session:
        session.set_pin(first, pin)
    make_durable(tokens, 0)
    _write_private(pin_file, pin + "\n")
    marker.unlink()


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_pin(path: Path) -> str:
    try:
        pin = path.read_text().strip()
    except OSError as error:
        raise InvalidInput(
            f"the PIN file cannot be read: {error.strerror}", where="hsm.pinFile", fix=f"check {path}"
        ) from None
    if not 4 <= len(pin) <= 255:
        raise InvalidInput("the PIN has 4 to 255 characters", where="hsm.pinFile")
    return pin


def make_durable(folder: Path, since_ns: int) -> None:
    """fsync what SoftHSM wrote since a moment (CLOCK_REALTIME, ns): it does not do so itself.

    Without it a power cut could lose a wrapping key that the database already relies on.
    """
    touched: set[str] = set()
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                # A second of slack: file times come from a coarser clock than ours.
                if os.stat(path).st_mtime_ns >= since_ns - 1_000_000_000:
                    _sync(path)
                    touched.add(parent)
            except FileNotFoundError:
                continue
    for parent in touched:
        _sync(parent)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
