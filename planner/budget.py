"""What the user allows: latency, memory, and perhaps loss, read as decimals, exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from planner.errors import InputError

__all__ = ["Budget", "Number"]

Number = int | float | str | Decimal
_LOG = logging.getLogger(__name__)
_NS_PER_MS = 10**6
_BYTES_PER_MIB = 2**20
_MOST_DIGITS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Budget:
    """Bound the latency of each model, the memory of all together, and the loss; None does not bind.

    Numbers are read as the decimals that are written: 123.456789 ms is 123456789 ns, and 1 MiB is 2^20 bytes.

    Attributes:
        latency_ms: Milliseconds, one number for each model alike, or a map from model to number.
        memory_mib: MiB of weights and activations of all models together.
        loss: Increase of the mean cross-entropy of all models together.
        arena: Whether the models run one after the other and share their activations' memory, or each has its
            own.
        latency_quantile: Which quantile of the latency must keep its bound; 0.5 is the median.

    >>> budget = Budget(latency_ms={"quick": 2.0}, memory_mib="0.5")
    >>> budget.latency_ns("quick"), budget.latency_ns("vggs"), budget.memory_bytes
    (2000000, None, 524288)
    """

    latency_ms: Number | Mapping[str, Number | None] | None = None
    memory_mib: Number | None = None
    loss: Number | None = None
    arena: Literal["shared", "separate"] = "shared"
    latency_quantile: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no number, and a bound of zero or less."""
        if isinstance(self.latency_ms, Mapping):
            for model, number in self.latency_ms.items():
                _positive(f"the latency bound of model {model!r}", number)
            object.__setattr__(self, "latency_ms", dict(self.latency_ms))
        else:
            _positive("the latency bound", self.latency_ms)
        _positive("the memory bound", self.memory_mib)
        _positive("the bound on the loss", self.loss)
        if self.arena not in ("shared", "separate"):
            raise InputError(f"arena is {self.arena!r}; expected 'shared' or 'separate'")
        quantile: Any = self.latency_quantile
        if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0.5 <= quantile < 1:
            raise InputError(f"latency_quantile is {quantile!r}; expected a number from 0.5 up to, not including, 1")

    def __eq__(self, other: object) -> bool:
        """Compare what is allowed, not how it was written."""
        return self.to_json() == other.to_json() if isinstance(other, Budget) else NotImplemented

    def __hash__(self) -> int:
        """Hash what ``==`` compares."""
        return hash(repr(self.to_json()))

    def latency_ns(self, model: str) -> int | None:
        """Return what a model may take, whole nanoseconds, rounded down; None where it is not bound."""
        allowed = self.latency_ms.get(model) if isinstance(self.latency_ms, Mapping) else self.latency_ms
        number = _positive("the latency bound", allowed)
        return None if number is None else int(number * _NS_PER_MS)

    @property
    def memory_bytes(self) -> int | None:
        """What all models together may take, whole bytes, rounded down; None where it is not bound."""
        number = _positive("the memory bound", self.memory_mib)
        return None if number is None else int(number * _BYTES_PER_MIB)

    @property
    def loss_exact(self) -> Decimal | None:
        """What all models together may lose; None where it is not bound."""
        return _positive("the bound on the loss", self.loss)

    def check_against(self, models: tuple[str, ...]) -> None:
        """Refuse a bound for a model that does not exist; warn of a map that leaves one out.

        Args:
            models: The names of those that exist.

        Raises:
            InputError: A bound is for none of them; they are listed.
        """
        if not isinstance(self.latency_ms, Mapping):
            return
        for name in self.latency_ms:
            if name not in models:
                raise InputError(f"a latency bound for the model {name!r}; in the table there are: {', '.join(models)}")
        for name in models:
            if name not in self.latency_ms:
                _LOG.warning("the model %r has no latency bound: the map leaves it out", name)

    def to_json(self) -> dict[str, Any]:
        """Return the budget as JSON values, its numbers as decimal text."""
        latency: Any = _text(self.latency_ms) if not isinstance(self.latency_ms, Mapping) else None
        if isinstance(self.latency_ms, Mapping):
            latency = {model: _text(number) for model, number in sorted(self.latency_ms.items())}
        return {
            "latency_ms": latency,
            "memory_mib": _text(self.memory_mib),
            "loss": _text(self.loss),
            "arena": self.arena,
            "latency_quantile": float(self.latency_quantile),
        }

    def __str__(self) -> str:
        """Write what binds."""
        parts = []
        if isinstance(self.latency_ms, Mapping):
            parts += [f"latency of {m} <= {_text(n)} ms" for m, n in self.latency_ms.items() if n is not None]
        elif self.latency_ms is not None:
            parts.append(f"latency <= {_text(self.latency_ms)} ms")
        if self.memory_mib is not None:
            parts.append(f"memory <= {_text(self.memory_mib)} MiB")
        if self.loss is not None:
            parts.append(f"loss <= {_text(self.loss)}")
        return ", ".join(parts) or "no bounds"


def _text(number: Number | None) -> str | None:
    if number is None:
        return None
    value = _positive("the bound", number)
    return None if value is None else format(value.normalize(), "f")


def _positive(what: str, number: Any) -> Decimal | None:
    """Read a number as the decimal that is written, and refuse zero, less, and what is not finite."""
    if number is None:
        return None
    try:
        if isinstance(number, bool):
            raise InvalidOperation
        value = Decimal(number) if isinstance(number, str | int | Decimal) else Decimal(repr(float(number)))
    except (InvalidOperation, TypeError, ValueError):
        raise InputError(f"{what} is {number!r}; expected a positive number") from None
    if not value.is_finite() or value <= 0:
        raise InputError(f"{what} is {number}; expected a positive number")
    if abs(value.adjusted()) > _MOST_DIGITS or len(value.as_tuple().digits) > _MOST_DIGITS:
        raise InputError(f"{what} is {number}; expected a number of at most {_MOST_DIGITS} digits")
    return value
