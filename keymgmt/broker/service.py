"""The running key service: its parts wired together, started in order, checked before it answers.

Start: the worker, then store and log; refuse on any sign of a
roll-back, publish what a crash left, delete HSM keys that nothing refers to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import cbor2
from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from crds.errors import KekkaiError
from keymgmt.broker.appraisal import Appraiser
from keymgmt.broker.challenge import Challenger
from keymgmt.broker.completions import Completions
from keymgmt.broker.metrics import Metrics
from keymgmt.broker.tokens import TokenKey
from keymgmt.config import KeyServiceConfig
from keymgmt.external.ask import ExternalKeys
from keymgmt.lifecycle import grants, releases
from keymgmt.lifecycle import keys as key_acts
from keymgmt.lifecycle.database import StoreUnavailable, open_database, reader_of
from keymgmt.lifecycle.denials import DenialLimiter
from keymgmt.lifecycle.folder_lock import replica_name
from keymgmt.lifecycle.journal import Change, Journal
from keymgmt.lifecycle.log_lease import LogLease
from keymgmt.lifecycle.log_leaves import published
from keymgmt.lifecycle.orphans import Orphans
from keymgmt.lifecycle.publication import LogPublication
from keymgmt.lifecycle.schema import meta
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.sequencer import restore_checkpoint
from keymgmt.transparency.verify import prove
from keymgmt.witness.wiring import open_store, open_witnesses
from keymgmt.wrapping.client import WorkerClient

logger = logging.getLogger(__name__)
T = TypeVar("T")
HOUSEKEEPING_SECONDS = 5.0
SWEEP_SECONDS = 300.0


class KeyService:
    """Everything that handlers need. Construct, `start`, `close`; the clock is injected for tests."""

    def __init__(
        self,
        config: KeyServiceConfig,
        worker: WorkerClient,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self.external = ExternalKeys(config.external.allowed_hosts)
        self._clock = clock
        self.worker = worker
        self._completions = Completions()
        self._orphans = Orphans()
        self._next_sweep = 0.0
        self.limiter = DenialLimiter(config.limits.denials_per_second, config.limits.denials_burst, time.monotonic)

    def start(self) -> None:
        """Bring everything up. Raises KekkaiError; then nothing must be served."""
        config = self.config
        hello = self.worker.wait_started()
        self.token_key = TokenKey(hello["ear_public_key"], f"kekkai-keys/{config.log.origin}")
        self.appraiser = Appraiser(config.attestation)
        self.engine: Engine = open_database(config.database_url)
        self.reader = reader_of(self.engine)
        self.log_key = VerifierKey(config.log.origin, hello["log_public_key"])
        self.log_files = open_store(config)
        self.cosigner = open_witnesses(config)
        (config.data_dir / "log.vkey").write_text(f"{self.log_key}\n")
        terms = LogLease(self.engine, replica_name(config.data_dir), config.log.lease_seconds)
        self.publication = LogPublication(self.engine, self._open_log, terms)
        self.publication.start()
        with self.reader.connect() as connection:
            releases.require_counts(connection)
        if config.hsm.embedded and not config.shares_store:
            self._delete_orphans()
        self.challenger = Challenger(self._session_secret(), config.limits.session_seconds)
        self.journal = Journal(self.engine, self.publication, self._clock)
        self.journal.start()

    def close(self) -> None:
        """Finish what was begun. The worker must still run: it signs the last checkpoint."""
        if hasattr(self, "journal"):
            self.journal.close()
        if hasattr(self, "publication"):
            self.publication.close()
        if hasattr(self, "engine"):
            self.engine.dispose()

    def now(self) -> datetime:
        """The service's time, UTC."""
        return self._clock()

    def seconds(self) -> int:
        """The service's time in Unix seconds."""
        return int(self._clock().timestamp())

    async def change(self, act: Callable[[Change], T]) -> T:
        """Run a change through the journal: committed, logged and published when this returns."""
        return await self._completions.wait(self.journal.submit(act))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a thread with its own read transaction. Raises StoreUnavailable."""

        def run() -> T:
            try:
                with self.reader.connect() as connection:
                    return query(connection)
            except SQLAlchemyError as error:
                logger.error("the store cannot be read: %s", type(error).__name__)
                raise StoreUnavailable("the store cannot be read", fix="retry later") from None

        return await asyncio.to_thread(run)

    async def hsm(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Have the worker do something. Raises KekkaiError."""
        return await self._completions.wait(self.worker.submit(operation, arguments))

    async def housekeeping(self) -> None:
        """Every few seconds: forget old sessions, log counts of denials that had no entry."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self.change(self._tidy)
                if self.config.hsm.embedded and self.publication.leads and time.monotonic() >= self._next_sweep:
                    self._next_sweep = time.monotonic() + SWEEP_SECONDS
                    await self._sweep()
            except KekkaiError as error:
                logger.warning("housekeeping failed: %s", error.problem.reason)

    async def _sweep(self) -> None:
        """Delete HSM keys that no version has needed for long; other replicas may be making new ones."""
        present = (await self.hsm("wrapping-keys"))["ids"]
        needed = await self.read(key_acts.live_hsm_keys)
        for hsm_key_id in self._orphans.look(present, needed, time.monotonic()):
            await self.hsm("destroy", hsm_key_id=hsm_key_id)
            logger.info("deleted an HSM key that nothing refers to")

    def _tidy(self, change: Change) -> None:
        grants.forget_expired(change, int(change.now.timestamp()))
        releases.forget_expired(change, int(change.now.timestamp()))
        releases.log_suppressed(change, self.limiter)

    def prove(self, index: int) -> bytes:
        """The offline proof of an entry (c2sp.org/tlog-proof@v1)."""
        return prove(self.log_files, self.log_key, index)

    def readiness(self) -> dict[str, str]:
        """What keeps the service from releasing keys now; empty if nothing does."""
        faults = {}
        if not self.worker.ready:
            faults["hsm"] = "the HSM worker is not ready"
        if not self.journal.healthy:
            faults["store"] = "the last change could not be committed and logged"
        if self.publication.fault:
            faults["log"] = f"the log is not being published: {self.publication.fault}"
        return faults

    def status(self) -> dict[str, Any]:
        """For administrators: mechanisms, fallbacks, hardening, log."""
        hello = self.worker.hello
        return {
            "ready": not self.readiness(),
            "faults": self.readiness(),
            "jurisdiction": self.config.jurisdiction,
            "hsm": hello.get("capabilities", {}),
            "worker": {"hardening": hello.get("hardening", {}), "restarts": self.worker.restarts},
            "trustAnchors": self.appraiser.anchors,
            "log": {
                "origin": self.config.log.origin,
                "size": self.publication.size,
                "vkey": str(self.log_key),
                "publishes": self.publication.leads,
                "epoch": self.publication.epoch,
                "anchors": len(self.config.log.anchors),
                "witnesses": self._witness_faults(),
            },
            "tokenKey": self.token_key.jwk,
        }

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint of any replica; empty before the first. Raises StoreUnavailable."""
        try:
            return published(self.reader).signed
        except SQLAlchemyError:
            raise StoreUnavailable("the store cannot be read", fix="retry later") from None

    def _open_log(self) -> TransparencyLog:
        restore_checkpoint(self.log_files, self.log_key, published(self.reader))
        return TransparencyLog(
            self.log_files, self.log_key, self._sign_checkpoint, self.config.log.anchors, self.cosigner
        )

    def _sign_checkpoint(self, text: bytes) -> bytes:
        signature = self.worker.call("sign-ed25519", {"message": text})["signature"]
        assert isinstance(signature, bytes)
        return signature

    def _witness_faults(self) -> dict[str, str]:
        """Per witness what kept its last cosignature from counting; empty text if it counted."""
        return {one.key.name: one.fault for one in self.cosigner.witnesses} if self.cosigner is not None else {}

    def _session_secret(self) -> bytes:
        """32 bytes for challenges, sealed by the token in the store: the same after a restart."""
        name = "session-secret"
        with self.reader.connect() as connection:
            sealed = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
        if sealed is None:
            secret = os.urandom(32)
            sealed = cbor2.dumps(self.worker.call("seal-secret", {"secret": secret})["sealed"])
            try:
                with self.engine.begin() as connection:
                    connection.execute(insert(meta).values(name=name, value=sealed))
            except IntegrityError:
                return self._session_secret()  # another replica was first
            return secret
        opened = self.worker.call("open-secret", {"sealed": cbor2.loads(bytes(sealed))})["secret"]
        assert isinstance(opened, bytes)
        return opened

    def _delete_orphans(self) -> None:
        """Destroy HSM keys that no stored version needs: a crash cut off their creation or destruction.

        Only after log and store were found sound, and only in a token that is ours alone.
        """
        with self.reader.connect() as connection:
            needed = key_acts.live_hsm_keys(connection)
        for hsm_key_id in self.worker.call("wrapping-keys", {})["ids"]:
            if hsm_key_id not in needed:
                self.worker.call("destroy", {"hsm_key_id": hsm_key_id})
                logger.info("deleted an HSM key that nothing refers to")
