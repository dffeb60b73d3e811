"""The log's storage and witnesses out of the configuration."""

from __future__ import annotations

from keymgmt.config import KeyServiceConfig
from keymgmt.transparency.cosignature import WitnessKey
from keymgmt.transparency.storage import LogStore, ObjectTiles
from keymgmt.transparency.tiles import TileFiles
from keymgmt.transparency.witnesses import Cosigner, Witness
from keymgmt.witness.client import HttpWitness


def open_store(config: KeyServiceConfig) -> LogStore:
    """Files, or the object store that `log.objects` names. Raises InvalidInput."""
    objects = config.log.objects
    if objects is None:
        return TileFiles(config.log_folder)
    options: dict[str, object] = {}
    if objects.endpoint is not None:
        options["endpoint_url"] = objects.endpoint
    if objects.region is not None:
        options["client_kwargs"] = {"region_name": objects.region}
    return ObjectTiles(objects.url, options, cache_bytes=objects.cache_bytes)


def open_witnesses(config: KeyServiceConfig) -> Cosigner | None:
    """The witnesses of `log.witnesses`; None if it is not given. Raises InvalidInput, NoteInvalid."""
    section = config.log.witnesses
    if section is None:
        return None
    peers = [
        Witness(WitnessKey.parse(one.key), HttpWitness(one.url, one.ca, timeout=section.timeout_seconds))
        for one in section.peers
    ]
    return Cosigner(peers, section.quorum, seconds=section.timeout_seconds, grace_seconds=section.grace_seconds)
