"""Errors as the KBS protocol sends them: `{"type": <prefix>/<Variant>, "detail"}`, 401 or 404.

Guests learn that they were refused, not why in detail: the owner reads the reason in the log.
"""

from __future__ import annotations

from starlette.responses import JSONResponse

from keymgmt.broker.paths import KBS_ERROR_PREFIX

# Variant names of confidential-containers/trustee, kbs/src/error.rs and attestation/mod.rs.
RCAR_AUTH_FAILED = "RcarAuthFailed"
RCAR_ATTEST_FAILED = "RcarAttestFailed"
TOKEN_NOT_FOUND = "TokenNotFound"  # noqa: S105
TOKEN_VERIFIER_ERROR = "TokenVerifierError"  # noqa: S105
POLICY_DENY = "PolicyDeny"
INVALID_REQUEST_PATH = "InvalidRequestPath"
PLUGIN_INTERNAL_ERROR = "PluginInternalError"
SET_POLICY = "SetPolicy"

_DETAILS = {
    POLICY_DENY: "Access denied by policy",
    TOKEN_NOT_FOUND: "Attestation Token not found",
    TOKEN_VERIFIER_ERROR: "Token Verifier error",
}


def kbs_error(variant: str, detail: str = "", status: int = 401) -> JSONResponse:
    """The reply. Status 503 is ours: the service cannot decide now, the guest should retry."""
    body = {"type": f"{KBS_ERROR_PREFIX}/{variant}", "detail": detail or _DETAILS.get(variant, variant)}
    headers = {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse(body, status_code=status, headers=headers)
