"""How kopf is set up here: it watches and hands over events, and keeps nothing on anybody's object.

kopf's storages serve its change handlers, which are not used. Left as they are, they
would copy each object twice an event, which was half of the operators' CPU time.
"""

from __future__ import annotations

import logging
from typing import Any

import kopf


class _NoDiffBase(kopf.DiffBaseStorage):
    """There is no last-handled state: nothing is compared."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """There are no handlers whose progress would have to last."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def settings() -> kopf.OperatorSettings:
    """Settings of an operator that only watches."""
    out = kopf.OperatorSettings()
    out.posting.enabled = False
    out.scanning.disabled = True
    out.peering.standalone = True
    out.watching.server_timeout = 600
    out.queueing.idle_timeout = 1.0
    out.persistence.diffbase_storage = _NoDiffBase()
    out.persistence.progress_storage = _NoProgress()
    # A line for each event handled would be most of the log and much of the time.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return out
