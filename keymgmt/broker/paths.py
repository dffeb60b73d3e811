"""Paths, roles and media types of the key service's HTTP interface, for servers and clients alike.

This module imports nothing heavy, so that operators and the CLI can use it.
"""

from __future__ import annotations

# KBS protocol 0.4.0 (confidential-containers/trustee, kbs/docs/kbs_attestation_protocol.md).
KBS_VERSION = "0.4.0"
KBS_AUTH = "/kbs/v0/auth"
KBS_ATTEST = "/kbs/v0/attest"
KBS_RESOURCE = "/kbs/v0/resource/{repository}/{kind}/{tag}"
KBS_COOKIE = "kbs-session-id"
KBS_ERROR_PREFIX = "https://github.com/confidential-containers/kbs/errors"
KEY_RESOURCE_TYPE = "key"  # resource {namespace}/key/{name}, or {namespace}/key.{version}/{name}

# Administration. Bearer tokens; the role that each needs stands in broker/admin.py.
CUSTODIANS = "/v1/custodians/{tenant}"
POLICIES = "/v1/policies"
POLICY = "/v1/policies/{digest}"
KEY = "/v1/keys/{namespace}/{name}"
KEY_DESTROY = "/v1/keys/{namespace}/{name}/destroy"
KEY_IMPORT = "/v1/keys/{namespace}/{name}/import"
KEY_ROTATE = "/v1/keys/{namespace}/{name}/rotate"
KEY_REWRAP = "/v1/keys/{namespace}/{name}/rewrap"
KEY_STATE = "/v1/keys/{namespace}/{name}/state"
KEYS = "/v1/keys"
KEY_PUBLIC = "/v1/keys/{namespace}/{name}/public-key"
TRANSIT = "/v1/transit/{namespace}/{name}/{operation}"  # bound to an attested session
IMPORT_KEY = "/v1/import-key"
RELEASES = "/v1/releases"
STATUS = "/v1/status"

# Public: the transparency log (c2sp.org/tlog-tiles), health, metrics.
LOG_CHECKPOINT = "/log/checkpoint"
LOG_TILE = "/log/tile/{path:path}"
LOG_KEY = "/log/vkey"  # the verifier key of the log, for a first look; pin it out of band
JWKS = "/.well-known/jwks.json"
HEALTH = "/healthz"
READY = "/readyz"
METRICS = "/metrics"
