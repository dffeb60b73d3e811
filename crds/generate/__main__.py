"""`python -m crds.generate`: write the CRD manifests and the API reference."""

from __future__ import annotations

from pathlib import Path

from crds.generate.manifests import crd, to_yaml
from crds.generate.reference import reference
from crds.registry import KINDS

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "crds" / "manifests"
REFERENCE = ROOT / "docs" / "reference" / "api.md"


def main() -> None:
    """Write every generated file; remove manifests of kinds that are gone."""
    MANIFESTS.mkdir(exist_ok=True)
    wanted = {f"{kind.plural}.yaml": to_yaml(crd(kind)) for kind in KINDS}
    for stale in set(path.name for path in MANIFESTS.glob("*.yaml")) - set(wanted):
        (MANIFESTS / stale).unlink()
    for name, text in wanted.items():
        (MANIFESTS / name).write_text(text)
    REFERENCE.parent.mkdir(parents=True, exist_ok=True)
    REFERENCE.write_text(reference())


if __name__ == "__main__":
    main()
