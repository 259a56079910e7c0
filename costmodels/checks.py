"""What figures and names in a table may be."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import cast

from costmodels.errors import TableError

__all__ = ["LARGEST", "check_name", "first_twice", "real", "whole"]

LARGEST = 2**53
"""No time (104 days of nanoseconds) or size (8 PiB) in a table is larger; so far floats count exactly too."""


def check_name(kind: str, name: object) -> None:
    """Refuse a name that no line of a table can hold."""
    if not isinstance(name, str):
        raise TableError(f"the name of a {kind} is {name!r}; expected text")
    if not name.strip():
        raise TableError(f"the name of a {kind} is empty")
    if name != name.strip() or not name.isprintable():
        raise TableError(f"the name of a {kind} is {name!r}; expected no control characters and no space around it")


def first_twice(names: Iterable[str]) -> str | None:
    """Return the first of some names that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def whole(field: str, value: object) -> int:
    """Return a whole number of 0 or more; refuse anything else."""
    if value is None:
        raise TableError(f"{field} is missing; expected a whole number of 0 or more")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TableError(f"{field} is {value!r}; expected a whole number of 0 or more")
    number = operator.index(value)
    if number < 0:
        raise TableError(f"{field} is {number}; expected a whole number of 0 or more")
    if number > LARGEST:
        raise TableError(f"{field} is {number}; expected at most {LARGEST}")
    return number


def real(field: str, value: object, least: float | None = None) -> float:
    """Return a finite number, perhaps of a least size; refuse anything else."""
    expected = "a finite number" if least is None else f"a finite number of {least:g} or more"
    if value is None:
        raise TableError(f"{field} is missing; expected {expected}")
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TableError(f"{field} is {value!r}; expected {expected}")
    number = float(cast("float", value))
    if not math.isfinite(number) or (least is not None and number < least):
        raise TableError(f"{field} is {number}; expected {expected}")
    return number + 0.0  # turns -0.0 into 0.0
