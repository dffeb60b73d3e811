"""One server's baseboard management controller, by Redfish: power, boot source, health.

sushy is synchronous, so calls run in threads: few at a time, each with a time limit. One
session a call, with basic authentication, since BMCs have few login sessions to give.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import sushy  # type: ignore[import-untyped]
from sushy import auth, exceptions

from operators.pools.providers.protocol import OrderRefused, ProviderError

T = TypeVar("T")
Power = Literal["On", "Off", "PoweringOn", "PoweringOff", "Paused", "Unknown"]
_BOOT = {"Pxe": sushy.BootSource.PXE, "UefiHttp": sushy.BootSource.UEFI_HTTP, "Hdd": sushy.BootSource.HDD}


@dataclass(frozen=True, slots=True)
class Bmc:
    """How to reach one server."""

    address: str
    system: str  # path of its ComputerSystem; empty: the only one
    username: str
    password: str
    ca: bytes = b""  # PEM; empty: the system's trust store

    def __repr__(self) -> str:
        return f"Bmc({self.address}{self.system})"


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a BMC says of its server."""

    power: Power
    health: str  # OK, Warning, Critical or empty
    uuid: str  # as the kubelet reports it in status.nodeInfo.systemUUID


class BmcCalls:
    """Calls to many BMCs: at most `at_once` run together, each ends within `limit` seconds."""

    def __init__(self, at_once: int = 16, limit: float = 45.0, read_timeout: float = 10.0) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="bmc")
        self._room = asyncio.Semaphore(at_once)
        self._limit = limit
        self._read_timeout = read_timeout
        self._roots = tempfile.TemporaryDirectory(prefix="kekkai-bmc-ca-")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._roots.cleanup()

    async def state(self, bmc: Bmc) -> ServerState:
        """Power, health and identity. Raises ProviderError."""
        return await self._call(bmc, _state)

    async def start(self, bmc: Bmc, boot_from: str) -> None:
        """Boot once from there and power on; one that is on already is left as it is. Raises ProviderError."""
        await self._call(bmc, lambda system: _start(system, boot_from))

    async def stop(self, bmc: Bmc, force: bool) -> None:
        """Ask for a shutdown, or cut the power. Raises ProviderError."""
        kind = sushy.ResetType.FORCE_OFF if force else sushy.ResetType.GRACEFUL_SHUTDOWN
        await self._call(bmc, lambda system: system.reset_system(kind))

    async def _call(self, bmc: Bmc, work: Callable[[Any], T]) -> T:
        _refuse_plain(bmc.address)
        async with self._room:
            try:
                running = asyncio.get_running_loop().run_in_executor(self._threads, self._work, bmc, work)
                return await asyncio.wait_for(running, self._limit)
            except TimeoutError:
                raise ProviderError(f"no answer within {self._limit:.0f} s", where=bmc.address) from None
            except exceptions.AccessError:
                raise OrderRefused(
                    "the BMC refuses the credentials", where=bmc.address, fix="mend the Secret"
                ) from None
            except exceptions.ResourceNotFoundError:
                raise OrderRefused("the BMC does not know this system", where=f"{bmc.address}{bmc.system}") from None
            except exceptions.SushyError as error:
                raise ProviderError(str(error)[:512], where=bmc.address) from error

    def _work(self, bmc: Bmc, work: Callable[[Any], T]) -> T:
        verify = self._root(bmc.ca) if bmc.ca else True
        root = sushy.Sushy(
            bmc.address,
            auth=auth.BasicAuth(bmc.username, bmc.password),
            verify=verify,
            server_side_retries=1,  # one try: to come again is the work queue's task
            server_side_retries_delay=1,
            read_timeout=self._read_timeout,
            connect_timeout=5,
        )
        try:
            return work(root.get_system(bmc.system or None))
        finally:
            root._conn.close()

    def _root(self, ca: bytes) -> str:
        path = Path(self._roots.name) / f"{hashlib.sha256(ca).hexdigest()}.pem"
        if not path.exists():
            path.write_bytes(ca)
        return str(path)


def _refuse_plain(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "https":
        return
    try:
        if ipaddress.ip_address(parts.hostname or "").is_loopback:
            return
    except ValueError:
        pass
    raise OrderRefused("the credentials would travel in the clear", where=address, fix="use https")


def _state(system: Any) -> ServerState:
    power = system.power_state
    health = system.status.health if system.status is not None else None
    return ServerState(
        power=power.value if power is not None else "Unknown",
        health=health.value if health is not None else "",
        uuid=str(system.uuid or "").lower(),
    )


def _start(system: Any, boot_from: str) -> None:
    if system.power_state in (sushy.PowerState.ON, sushy.PowerState.POWERING_ON):
        return
    system.set_system_boot_options(_BOOT[boot_from], enabled=sushy.BootSourceOverrideEnabled.ONCE)
    system.reset_system(sushy.ResetType.ON)
