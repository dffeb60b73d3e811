"""`python -m local.hardware.snp`: make the emulated vendor, or print a launch measurement."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from local.hardware.snp.launch import launch_measurement


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.hardware.snp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="print the launch measurement of the guest agent, hex")
    measure.add_argument("--kernel-params", default="", help="as in the pod's kernel_params annotation")
    root = commands.add_parser("trust-root", help="make the vendor's keys and print its trust root folder")
    root.add_argument("--data-dir", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "measure":
        sys.stdout.write(launch_measurement(arguments.kernel_params).hex() + "\n")
    else:
        from local.hardware.snp.platform import SnpPlatform

        sys.stdout.write(f"{SnpPlatform(arguments.data_dir).trust_root}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
