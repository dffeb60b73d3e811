"""Bearer tokens of administrators and the roles they carry."""

from __future__ import annotations

from starlette.requests import Request

from crds.errors import Forbidden, Unauthenticated
from keymgmt.config import KeyServiceConfig, Role


def require_role(request: Request, config: KeyServiceConfig, *roles: Role) -> None:
    """Check that the request's bearer token has one of `roles`. Raises Unauthenticated or Forbidden."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > 512:
        raise Unauthenticated("a bearer token is needed", where="Authorization", fix="send Authorization: Bearer …")
    held = config.roles_of(token.strip())
    if not held:
        raise Unauthenticated("the token is not known", where="Authorization", fix="check the token")
    if not held & set(roles):
        raise Forbidden(f"this needs the role {' or '.join(roles)}", where="Authorization")
