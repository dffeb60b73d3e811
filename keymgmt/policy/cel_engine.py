"""Loads the CEL engine (common-expression-language, a Rust extension) without its interactive shell.

The package's `__init__` imports that shell and with it prompt_toolkit and rich: half a second
of start-up and much code that a key service has no use for.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from typing import Any


def load_compiler() -> Callable[[str], Any]:
    """`compile(expression) -> Program`; Program.execute(variables) evaluates. Raises ImportError."""
    if "cel" not in sys.modules:
        package = importlib.util.find_spec("cel")
        for folder in (package.submodule_search_locations or ()) if package else ():
            finder = importlib.machinery.FileFinder(
                folder, (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
            )
            if (spec := finder.find_spec("cel")) is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                compiler: Callable[[str], Any] = module.compile
                return compiler
    import cel

    whole: Callable[[str], Any] = cel.compile
    return whole
