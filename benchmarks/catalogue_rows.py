"""What is known of a choice that was put everywhere at once: rows that are kept from one run to the next."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from costmodels import write_aside

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one program takes beside the exact build, timed in turn with it.

    Attributes:
        ms: Median over the rounds, milliseconds.
        exact_ms: The same of the exact build.
        ratio: Median over the rounds of the ratio of the two.
        quartiles: Quartiles of that ratio.
        rounds: Rounds.
        machine: Processor.
    """

    ms: float
    exact_ms: float
    ratio: float
    quartiles: tuple[float, float]
    rounds: int
    machine: str

    def __post_init__(self) -> None:
        """Refuse times that are none, and hold a tuple."""
        object.__setattr__(self, "quartiles", tuple(self.quartiles))
        if not (self.ms > 0 and self.exact_ms > 0 and self.ratio > 0 and self.rounds > 0):
            raise ValueError(
                f"{self.ms} ms beside {self.exact_ms} ms over {self.rounds} rounds; expected positive ones"
            )

    @classmethod
    def of(cls, samples_ms: Iterable[float], exact_ms: Iterable[float], machine: str) -> Timing:
        """Sum up samples of the same rounds.

        >>> Timing.of([1.0, 1.2, 1.1], [2.0, 2.0, 2.0], "here").ratio
        0.55
        """
        mine, exact = np.array(list(samples_ms)), np.array(list(exact_ms))
        low, high = np.quantile(mine / exact, (0.25, 0.75))
        return cls(
            ms=float(np.median(mine)),
            exact_ms=float(np.median(exact)),
            ratio=float(np.median(mine / exact)),
            quartiles=(float(low), float(high)),
            rounds=len(mine),
            machine=machine,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One choice in all layers of one network that offer it, or an outside reference.

    Attributes:
        network: Name of the network.
        network_sha256: Of its file.
        choice: The choice, or the name of the reference.
        state: Digest of the sources that built it.
        layers: Layers that took the choice, or a part of it.
        weight_bytes: Bytes of weights in the artefact.
        exact_weight_bytes: The same of the exact build.
        top1: Top-1 of its outputs, per cent.
        exact_top1: Top-1 of the exact build's outputs.
        top1_change: Difference in points; negative is worse.
        top1_change_std: Its standard error, images paired.
        loss: Increase of the mean cross-entropy.
        loss_std: Its standard error, images paired.
        images: Test images.
        seconds: What rewriting, refitting and compiling took.
        reference: Whether it is another runtime's, for comparison.
        timing: How long it takes; None until it is timed.
    """

    network: str
    network_sha256: str
    choice: str
    state: str
    layers: int
    weight_bytes: int
    exact_weight_bytes: int
    top1: float
    exact_top1: float
    top1_change: float
    top1_change_std: float
    loss: float
    loss_std: float
    images: int
    seconds: float
    reference: bool = False
    timing: Timing | None = field(default=None)

    def __post_init__(self) -> None:
        """Refuse a row without bytes or images."""
        if self.weight_bytes <= 0 or self.exact_weight_bytes <= 0 or self.images < 1:
            raise ValueError(f"{self.network} {self.choice}: {self.weight_bytes} bytes, {self.images} images")

    @property
    def key(self) -> tuple[str, str]:
        """What tells rows of one file apart."""
        return self.network_sha256, self.choice

    @property
    def bytes_ratio(self) -> float:
        """Bytes of weights over those of the exact build."""
        return self.weight_bytes / self.exact_weight_bytes


class Rows:
    """Rows in a file, written after each one."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self.path = path
        self._rows = self._read()

    def _read(self) -> dict[tuple[str, str], Row]:
        found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else []
        return {row.key: row for row in map(row_of, found)}

    def find(self, network_sha256: str, choice: str, state: str | None) -> Row | None:
        """Return a row that is finished in this state of the sources, or in any if that is None."""
        row = self._rows.get((network_sha256, choice))
        return row if row is not None and state in (None, row.state) else None

    def put(self, row: Row) -> None:
        """Keep a row, in place of the one of the same choice, beside what another run has written meanwhile."""
        self._rows = self._read() | {row.key: row}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(self.path, json.dumps([dataclasses.asdict(each) for each in self], indent=1) + "\n")

    def __iter__(self) -> Any:
        """Go through the rows in the order in which their choices were first measured."""
        return iter(self._rows.values())


def row_of(values: dict[str, Any]) -> Row:
    """Make a row of what was read from a file."""
    timing = values.pop("timing", None)
    return Row(**values, timing=None if timing is None else Timing(**timing))


def state() -> str:
    """Digest the sources that decide what a build is: a change of any makes rows anew."""
    digest = hashlib.sha256()
    for package in ("planner", "costmodels"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
