"""Who may do what: the operators' own rights, and the roles that tenants' owners get.

`manifests()` returns the documents in the order in which they are to be applied. The
operator has no wildcard and is not cluster-admin; it may bind only the two tenant roles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TENANT_OWNER = "kekkai-tenant-owner"
TENANT_VIEWER = "kekkai-tenant-viewer"


def manifests() -> list[dict[str, Any]]:
    """All documents, by file name."""
    folder = Path(__file__).resolve().parent
    return [doc for path in sorted(folder.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text()) if doc]
