"""What a store gives back: finished results and timing samples, and by what name each is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

__all__ = ["Phase", "Record", "Sample", "canonical", "digest", "packed", "unpacked"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One finished result.

    Attributes:
        value: What was found, as JSON values.
        arrays: Arrays that belong to it, by name; read-only.
        run: Number of the run that found it.
        time: When, UTC in ISO 8601.

    Examples:
        >>> Record(value={"loss_raw": 0.5}, run=1, time="2026-01-01T00:00:00+00:00").value
        {'loss_raw': 0.5}
    """

    value: Any
    arrays: Mapping[str, Array] = field(default_factory=dict, repr=False)
    run: int
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One timing in one round.

    Attributes:
        round: Number of the round; no run has two samples of one thing in one round.
        nanoseconds: What was measured.
        control_ns: The exact control in the same round, nanoseconds; None where there was none.
        mark: What is to be known of it, such as ``drifted``; empty where nothing is.
        run: Number of the run that took it; 0 before a store has it.
        time: When a store received it, UTC in ISO 8601; empty before.

    Examples:
        >>> Sample(round=3, nanoseconds=1500.0, control_ns=2000.0).mark
        ''
    """

    round: int
    nanoseconds: float
    control_ns: float | None = None
    mark: str = ""
    run: int = 0
    time: str = ""

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        times = (self.nanoseconds, 0.0 if self.control_ns is None else self.control_ns)
        if self.round < 0 or not np.isfinite(times).all() or min(times) < 0:
            raise InputError(
                f"sample of round {self.round} is {self.nanoseconds} ns beside a control of {self.control_ns} ns; "
                "expected finite times and a round, none below 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """How far a run is with one kind of work on one model.

    Attributes:
        model: Name of the model.
        phase: What is done, such as ``losses``.
        done: How many of its parts are done.
        total: How many there are.
        reused: How many of those that are done were there before.
        seconds: How long the others took.

    Examples:
        >>> Phase(model="quick", phase="losses", done=30, total=40, reused=10, seconds=5.0).open
        10
    """

    model: str
    phase: str
    done: int = 0
    total: int = 0
    reused: int = 0
    seconds: float = 0.0

    @property
    def open(self) -> int:
        """How many parts are left."""
        return max(0, self.total - self.done)

    @property
    def part_s(self) -> float | None:
        """Seconds that a part took; None before one was measured."""
        measured = self.done - self.reused
        return self.seconds / measured if measured > 0 else None


def canonical(about: Mapping[str, Any]) -> str:
    """Write a mapping as JSON that is the same whatever the order of its keys.

    >>> canonical({"b": 1, "a": (2, 3)})
    '{"a":[2,3],"b":1}'
    """
    return json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(about: Mapping[str, Any]) -> str:
    """Return the sha256 of a mapping's canonical JSON, which stands for it in a store.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical(about).encode()).hexdigest()


def packed(array: Array) -> tuple[str, str, bytes]:
    """Return an array's type, its shape as JSON and its elements, the lowest byte first.

    Raises:
        InputError: The elements are neither numbers nor truth values.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"an array of {array.dtype} cannot be stored; expected numbers or truth values")
    ordered = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return ordered.dtype.str, json.dumps(array.shape), ordered.tobytes()


def unpacked(kind: str, shape: str, data: bytes) -> Array:
    """Return the array that :func:`packed` took apart; read-only.

    >>> unpacked(*packed(np.array([[1.5], [2.5]], np.float16))).tolist()
    [[1.5], [2.5]]
    """
    return np.frombuffer(data, dtype=np.dtype(kind)).reshape(tuple(json.loads(shape)))
