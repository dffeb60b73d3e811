"""Kubernetes quantities as exact integers.

No float ever holds a quantity: 0.1 CPU is 100 milli-CPU, "1.5Gi" is 1610612736 bytes.
Format: apimachinery `resource.Quantity` (decimal or binary SI suffix, or exponent).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from crds.errors import InvalidInput

PATTERN = r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,3})?$"
_FORM = re.compile(PATTERN)
_SUFFIX = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_SPLIT = re.compile(r"^([+-]?[0-9.]+)(.*)$")
_MAX_LENGTH = 64


def _decimal(quantity: str | int, where: str) -> Decimal:
    if isinstance(quantity, bool):
        raise InvalidInput(f"{quantity!r} is not a quantity", where=where, fix="write a number such as 4 or 500m")
    if isinstance(quantity, int):
        return Decimal(quantity)
    found = _SPLIT.match(quantity) if len(quantity) <= _MAX_LENGTH else None
    if found is not None:
        number, suffix = found.groups()
        try:
            if suffix in _SUFFIX:
                return Decimal(number) * _SUFFIX[suffix]
            if re.fullmatch(r"[eE][+-]?[0-9]{1,3}", suffix):
                return Decimal(number + suffix)
        except InvalidOperation:
            pass
    raise InvalidInput(
        f"{quantity[:_MAX_LENGTH]!r} is not a quantity",
        where=where,
        fix="write a number with an optional suffix, such as 500m, 4, 16Gi",
    )


def whole(quantity: str | int, where: str = "") -> int:
    """The quantity in whole units (bytes, devices), rounded up as Kubernetes does."""
    return int(_decimal(quantity, where).to_integral_value(rounding=ROUND_CEILING))


def milli(quantity: str | int, where: str = "") -> int:
    """The quantity in thousandths (milli-CPU), rounded up as Kubernetes does."""
    return int((_decimal(quantity, where) * 1000).to_integral_value(rounding=ROUND_CEILING))


def micro(quantity: str | int, where: str = "") -> int:
    """The quantity in millionths: prices per hour are kept in millionths of a currency unit."""
    return int((_decimal(quantity, where) * 1_000_000).to_integral_value(rounding=ROUND_CEILING))


def resource_units(name: str, quantity: str | int, where: str = "") -> int:
    """The integer a scheduler adds up: milli for `cpu`, whole units for all else."""
    return milli(quantity, where) if name == "cpu" else whole(quantity, where)


def show(name: str, units: int) -> str:
    """The inverse of `resource_units`, in the shortest exact form."""
    if name == "cpu":
        return f"{units // 1000}" if units % 1000 == 0 else f"{units}m"
    if name in {"memory", "ephemeral-storage"}:
        for suffix, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if units and units % size == 0:
                return f"{units // size}{suffix}"
    return str(units)


def _to_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_to_text),
    Field(pattern=PATTERN, max_length=_MAX_LENGTH),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": PATTERN,
            "maxLength": _MAX_LENGTH,
        }
    ),
]
DecimalText = Annotated[str, Field(pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,9})?$", max_length=24)]
"""A decimal number as text (prices, coordinates): exact, and the same in every language."""
