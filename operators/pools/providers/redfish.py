"""Bare metal: the servers of the pool's inventory, powered on for demand and off when idle.

A server belongs to the Machine whose token holds its claim (see `claims`). The claim is
written before the power button is touched and taken off once the power is seen to be
off, so no step can be lost. Host n of the inventory stands where slot n of the pool is:
list hosts rack by rack. A server that is on and claimed by nobody is somebody else's and
left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from operators.pools.providers.bmc import Bmc, BmcCalls, ServerState
from operators.pools.providers.claims import Claim, Claims, Ledger
from operators.pools.providers.protocol import Instance, OutOfCapacity, ProviderError, ProviderOrder
from operators.pools.providers.secrets import Credentials
from operators.runtime import Cluster

_SETTLE = 15.0  # seconds after power-on was asked for, during which "Off" may only mean "not on yet"
_GRACE = 60.0  # seconds that a server has for an orderly shutdown
_AVOID = 600.0  # seconds for which a server that failed is the last to be taken
_TRIES = 3  # servers looked at in one call


class RedfishProvider:
    """Claims servers and switches them."""

    scheme = "redfish"

    def __init__(
        self,
        cluster: Cluster,
        calls: BmcCalls | None = None,
        clock: Callable[[], float] = time.time,
        settle: float = _SETTLE,
        grace: float = _GRACE,
    ) -> None:
        self._claims = Claims(cluster, self.scheme)
        self._credentials = Credentials(cluster)
        self._calls = calls or BmcCalls()
        self._clock = clock
        self._settle = settle
        self._grace = grace
        self._avoided: dict[tuple[str, str], float] = {}  # (pool, host) → until
        self._stopped: set[tuple[str, str]] = set()  # (pool, token) whose power was asked off by this process

    async def create(self, order: ProviderOrder) -> Instance:
        pool = order.pool["metadata"]["name"]
        for _ in range(_TRIES):
            claim = (await self._claims.change(pool, lambda ledger: self._take(ledger, order)))[order.client_token]
            bmc = await self._bmc(claim)
            state = await self._calls.state(bmc)
            why = _unfit(claim, state)
            if not why or claim.get("startedAt"):
                return await self._start(pool, order, claim, bmc, state)
            self._avoided[pool, claim["host"]] = self._clock() + _AVOID
            await self._claims.change(pool, lambda ledger: _without(ledger, order.client_token))
        raise OutOfCapacity(f"server {claim['host']} {why}", where=f"AcceleratorPool {pool}")

    async def _start(self, pool: str, order: ProviderOrder, claim: Claim, bmc: Bmc, state: ServerState) -> Instance:
        token = order.client_token
        if not claim.get("startedAt"):
            claim = {**claim, "startedAt": self._clock(), "uuid": state.uuid}
            await self._claims.change(pool, lambda ledger: _with(ledger, token, claim))
        if state.health == "Critical":
            return _instance(pool, token, claim, state)
        spec = order.pool["spec"]["provider"]["redfish"]
        try:
            await self._calls.start(bmc, spec.get("bootFrom", "Pxe"))
        except ProviderError:
            self._avoided[pool, claim["host"]] = self._clock() + _AVOID
            raise
        return _instance(pool, token, claim, state)

    async def get(self, pool: str, client_token: str) -> Instance | None:
        claim = (await self._claims.read(pool)).get(client_token)
        if claim is None:
            return None
        return _instance(pool, client_token, claim, await self._calls.state(await self._bmc(claim)))

    async def delete(self, pool: str, client_token: str) -> bool:
        claim = (await self._claims.read(pool)).get(client_token)
        if claim is None:
            return True
        now = self._clock()
        if claim.get("startedAt"):
            bmc = await self._bmc(claim)
            if "stoppedAt" not in claim:
                claim = {**claim, "stoppedAt": now}
                await self._claims.change(pool, lambda ledger: _with(ledger, client_token, claim))
            state = await self._calls.state(bmc)
            if state.power != "Off":
                await self._stop(pool, client_token, bmc, now > claim["stoppedAt"] + self._grace)
                return False
            if now < claim["startedAt"] + self._settle:
                return False
        await self._claims.change(pool, lambda ledger: _without(ledger, client_token))
        self._stopped.discard((pool, client_token))
        return True

    async def _stop(self, pool: str, token: str, bmc: Bmc, force: bool) -> None:
        # An orderly shutdown is asked for once; asked again, some BMCs press the button again.
        if force or (pool, token) not in self._stopped:
            await self._calls.stop(bmc, force)
            self._stopped.add((pool, token))

    async def list(self) -> Iterable[tuple[str, Instance]]:
        found = []
        for pool in await self._claims.pools():
            for token, claim in (await self._claims.read(pool)).items():
                found.append((pool, _instance(pool, token, claim, None)))
        return found

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        return None

    def _take(self, ledger: Ledger, order: ProviderOrder) -> Ledger:
        """The ledger with a server for this order: the one it has, else the best free one. Raises OutOfCapacity."""
        if order.client_token in ledger:
            return ledger
        pool = order.pool["metadata"]["name"]
        spec = order.pool["spec"]["provider"]["redfish"]
        held = {claim["host"] for claim in ledger.values()}
        slot = _slot(order)
        fit = [
            (self._avoided.get((pool, host["name"]), 0.0) > self._clock(), number != slot, number)
            for number, host in enumerate(spec["hosts"])
            if host["name"] not in held and number in _neighbours(order, slot)
        ]
        if not fit:
            raise OutOfCapacity(f"no server is free for slot {slot}", where=f"AcceleratorPool {pool}")
        host = spec["hosts"][min(fit)[2]]
        claim = {
            "machine": order.machine,
            "host": host["name"],
            "address": host["address"],
            "system": host.get("system", ""),
            "credentials": spec["credentials"],
            "at": self._clock(),
        }
        return _with(ledger, order.client_token, claim)

    async def _bmc(self, claim: Claim) -> Bmc:
        # From the claim, not the pool: what has left the inventory must still be switched off.
        secret = await self._credentials.read(claim["credentials"], "username", "password")
        name, word = secret["username"].decode(), secret["password"].decode()
        return Bmc(claim["address"], claim["system"], name, word, secret.get("ca.crt", b""))


def _slot(order: ProviderOrder) -> int:
    number = order.machine.removeprefix(f"{order.pool['metadata']['name']}-")
    return int(number) if number.isdecimal() else 0


def _neighbours(order: ProviderOrder, slot: int) -> range:
    """The slots that share the machine's innermost domain: a server there keeps the promise of its labels."""
    links = order.pool["spec"].get("interconnect") or {}
    hosts = len(order.pool["spec"]["provider"]["redfish"]["hosts"])
    size = links.get("nodesPerNvlinkDomain") or links.get("nodesPerRack") or hosts
    first = slot // size * size
    return range(first, first + size)


def _unfit(claim: Claim, state: ServerState) -> str:
    if state.health == "Critical":
        return "reports Critical health"
    if not claim.get("startedAt") and state.power != "Off":
        return f"is {state.power} and claimed by nobody; power it off to give it to the pool"
    return ""


def _instance(pool: str, token: str, claim: Claim, state: ServerState | None) -> Instance:
    ill = state is not None and state.health == "Critical"
    on = state is not None and state.power == "On"
    return Instance(
        provider_id=f"redfish://{pool}/{claim['host']}/{token}",
        client_token=token,
        machine=claim["machine"],
        state="deleting" if "stoppedAt" in claim else "failed" if ill else "running" if on else "creating",
        fault=f"server {claim['host']} reports Critical health" if ill else "",
        created_at=float(claim["at"]),
        system_uuid=claim.get("uuid", ""),
    )


def _with(ledger: Ledger, token: str, claim: Claim) -> Ledger:
    return {**ledger, token: claim}


def _without(ledger: Ledger, token: str) -> Ledger:
    return {key: claim for key, claim in ledger.items() if key != token}
