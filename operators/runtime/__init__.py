"""What every operator stands on: cluster client, watched stores, retrying work queues, kopf.

kopf watches (`watch` those kinds that change most) and each event goes to a store;
stores tell controllers which keys to visit; a work queue visits them with back-off
until they are right. Nothing here knows a kind's meaning.
"""

from operators.runtime.cluster import ApiFault, Cluster
from operators.runtime.controller import Attachable, Controller, Key, Touches
from operators.runtime.resources import RESOURCES, ResourceType
from operators.runtime.run import Runtime
from operators.runtime.status import add_finalizer, change_of, drop_finalizer, patch_status, write_status
from operators.runtime.store import Index, Store, Stores
from operators.runtime.workqueue import WorkQueue

__all__ = [
    "RESOURCES",
    "ApiFault",
    "Attachable",
    "Cluster",
    "Controller",
    "Index",
    "Key",
    "ResourceType",
    "Runtime",
    "Store",
    "Stores",
    "Touches",
    "WorkQueue",
    "add_finalizer",
    "change_of",
    "drop_finalizer",
    "patch_status",
    "write_status",
]
