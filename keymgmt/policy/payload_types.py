"""Payload types of the DSSE envelopes that custodians sign (github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

POLICY_TYPE = "application/vnd.kekkai.release-policy.v1+json"
CUSTODIAN_SET_TYPE = "application/vnd.kekkai.custodian-set.v1+json"
IMPORT_ORDER_TYPE = "application/vnd.kekkai.import-order.v1+json"
CEREMONY_TYPE = "application/vnd.kekkai.ceremony-transcript.v1+json"
DESTROY_ORDER_TYPE = "application/vnd.kekkai.destroy-order.v1+json"
