"""What is said when a cost table cannot be trusted."""

from __future__ import annotations

from typing import Self

__all__ = ["TableError"]


class TableError(ValueError):
    """Refuse a cost table, naming the place: file, line, model, layer and choice, as far as they are known.

    >>> print(TableError("latency_ns is -1").at(choice="int8").at(file="t.csv", line=7, layer="conv1"))
    t.csv: line 7: layer 'conv1': choice 'int8': latency_ns is -1
    """

    def __init__(self, reason: str, place: dict[str, str | int] | None = None) -> None:
        """Keep the reason apart from the place, so that callers who know more of the place can add it."""
        self.reason = reason
        self.place = dict(place or {})
        super().__init__(reason)

    def at(self, **place: str | int) -> Self:
        """Return the same refusal with more of its place known; what was already known stays."""
        return type(self)(self.reason, {**place, **self.place})

    def __str__(self) -> str:
        """Write the place from the outside in, then the reason."""
        parts = [str(self.place["file"])] if "file" in self.place else []
        if "line" in self.place:
            parts.append(f"line {self.place['line']}")
        parts += [f"{kind} {self.place[kind]!r}" for kind in ("model", "layer", "choice", "edge") if kind in self.place]
        return ": ".join([*parts, self.reason])
