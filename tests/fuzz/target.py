"""What a fuzzing target is: a parser of bytes, good inputs to start from, and what it may raise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keymgmt import strict_json

SHARED = Path(os.environ.get("KEKKAI_SHARED") or Path(__file__).resolve().parents[3] / "shared")


@dataclass(frozen=True)
class Target:
    """A parser of bytes. `may_raise` beside KekkaiError are errors of its documented contract."""

    name: str
    parse: Callable[[bytes], Any]
    seeds: tuple[bytes, ...]
    may_raise: tuple[type[Exception], ...] = ()


def of_json(parse: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    """The parser of a JSON document's bytes."""
    return lambda data: parse(strict_json.parse(data))
