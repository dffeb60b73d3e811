"""Writes the Python modules of the .proto files of this folder (`make generate`)."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
_HEAD = "# ruff: noqa\n# fmt: off\n# mypy: ignore-errors\n"


def main() -> int:
    """0 when all was written."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    well_known = Path(protoc.__file__).parent / "_proto"
    for source in ("externalgrpc.proto", "core.proto"):
        out = [f"--python_out={ROOT}", f"--pyi_out={ROOT}"]
        if source == "externalgrpc.proto":
            out.append(f"--grpc_python_out={ROOT}")
        failed = protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *out, str(HERE / source)])
        if failed:
            return int(failed)
    for path in sorted([*HERE.glob("*_pb2.py"), *HERE.glob("*_pb2.pyi"), *HERE.glob("*_pb2_grpc.py")]):
        text = path.read_text()
        if not text.startswith(_HEAD):
            path.write_text(_HEAD + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
