"""Read-only integers in one dimension: what problems are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LARGEST", "Integers", "check_terms", "integers", "read_only"]

Integers = npt.NDArray[np.int64]

LARGEST = 2**62
"""No row can reach this value, whatever is chosen, so that sums in 64 bits never overflow."""


def integers(name: str, values: object, length: int | None = None) -> Integers:
    """Return read-only 64-bit integers, ``(n,)``; an array that is so already is not copied.

    Args:
        name: What they are, for messages.
        values: Whole numbers in one dimension.
        length: How many there must be.

    Raises:
        ValueError: They are not whole, not in one dimension, too large, or of another number.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; expected integers in one dimension")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} entries; expected {length}")
    if array.dtype == np.int64 and not array.flags.writeable and array.base is None:
        return array
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} does not fit into 64 bits")
    return read_only(array.astype(np.int64))


def read_only(array: Integers) -> Integers:
    """Return the array, which nobody else may hold, so that nobody can write to it any more."""
    array.flags.writeable = False
    return array


def check_terms(what: str, options: Integers, costs: Integers) -> None:
    """Refuse options out of order and costs below zero."""
    if len(options) > 1 and bool((np.diff(options) <= 0).any()):
        raise ValueError(f"the options of {what} are not in strictly ascending order")
    if len(costs) and int(costs.min()) < 0:
        raise ValueError(f"{what} has the cost {int(costs.min())}; expected 0 or more")
