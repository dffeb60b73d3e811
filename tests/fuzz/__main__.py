"""`python -m tests.fuzz`: a long campaign over all targets, or the named ones."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.campaign import run
from tests.fuzz.targets import targets


def main() -> int:
    """Exit status 1 when anything was found; each finding is printed with its input in hex."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="names of targets; all when none is given")
    parser.add_argument("--iterations", type=int, default=2_000_000, help="inputs a target")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failed = False
    for target in targets():
        if given.targets and target.name not in given.targets:
            continue
        started = time.monotonic()
        found = run(target, given.iterations, given.seed)
        rate = found.inputs / max(time.monotonic() - started, 1e-9)
        print(
            f"{target.name:22} {found.inputs:9} inputs {found.accepted:9} accepted {rate:9.0f}/s "
            f"{len(found.faults)} findings",
            flush=True,
        )
        for data, told in found.faults:
            failed = True
            print(f"  input {data[:512].hex()}\n{told}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
