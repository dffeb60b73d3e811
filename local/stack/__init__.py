"""Kekkai on a local control plane: kinds, roles and policies; key service, operators, emulated hardware.

Everything runs as the process it is in production, under its own identity, supervised
by the control plane's supervisor. It decides nothing.
"""

from local.stack.install import install
from local.stack.processes import Stack, start

__all__ = ["Stack", "install", "start"]
