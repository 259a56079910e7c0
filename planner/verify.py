"""Verifying a build: what was promised beside what is measured, bound by bound."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodels import write_aside
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.dataset import Dataset
    from planner.tvm_config import BuildConfig, NetworkConfig

__all__ = ["Measured", "Promise", "Report", "verify"]

logger = logging.getLogger(__name__)

DRIFT = 0.05
"""Relative change of the control beyond which a measurement is repeated."""
ATTEMPTS = 5
_KIND = "blinkplan report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One bound of a plan, what was predicted, and what is.

    Attributes:
        what: ``latency of quick`` or ``memory``.
        bound: What is allowed, ns or bytes; None where it does not bind.
        predicted: What the plan promised, ns or bytes.
        measured: What the artefact takes, ns or bytes.
        unit: ``ns`` or ``bytes``.

    Examples:
        >>> Promise(what="memory", bound=100, predicted=90, measured=95, unit="bytes").kept
        True
    """

    what: str
    bound: int | None
    predicted: int
    measured: float
    unit: str

    @property
    def kept(self) -> bool:
        """Whether the bound holds for what was measured."""
        return self.bound is None or self.measured <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One network as measured.

    Attributes:
        name: Name of the network.
        p50_ns: Median latency, nanoseconds.
        p99_ns: 99th percentile of the latency, nanoseconds.
        control_p50_ns: Median latency of the exact build in the same rounds.
        drift: Relative change of that since the table was measured; None where the table does not say.
        runs: Single runs timed, as many of the control.
        weight_bytes: Bytes of weights in the artefact.
        arena_bytes: Bytes for activations, input and output included.
        predicted_loss: Increase of the mean cross-entropy that the plan predicts.
        loss: The same as measured on the test images.
        loss_std: Its paired standard error.
        top1: Top-1 on the test images, percent.
        exact_top1: Top-1 of the exact build.
        top1_change: Difference in points; negative is worse.
        top1_change_std: Its paired standard error.
        images: Test images.
        onnxruntime_p50_ns: Median latency of the exact network in onnxruntime with as many threads, in the same rounds;
            None in reports of before this was measured.
        onnxruntime_p99_ns: 99th percentile of that.
        expected_loss: Loss that the plan expects with what its choices lose together counted in; None where its table
            does not say.
        expected_loss_std: Its standard error.
        expected_top1: Change of top-1 that the plan expects, points; likewise.
        expected_top1_std: Its standard error.
    """

    name: str
    p50_ns: float
    p99_ns: float
    control_p50_ns: float
    drift: float | None
    runs: int
    weight_bytes: int
    arena_bytes: int
    predicted_loss: float
    loss: float
    loss_std: float
    top1: float
    exact_top1: float
    top1_change: float
    top1_change_std: float
    images: int
    onnxruntime_p50_ns: float | None = None
    onnxruntime_p99_ns: float | None = None
    expected_loss: float | None = None
    expected_loss_std: float | None = None
    expected_top1: float | None = None
    expected_top1_std: float | None = None

    @property
    def against_expected(self) -> str:
        """Say what the plan expected of the accuracy; empty where its table does not say."""
        if self.expected_top1 is None or self.expected_loss is None:
            return ""
        return (
            f"expected: top-1 {self.expected_top1:+.2f} +- {self.expected_top1_std:.2f} points, "
            f"loss {self.expected_loss:+.4f} +- {self.expected_loss_std:.4f}"
        )

    @property
    def against_onnxruntime(self) -> str:
        """Say what a user would have instead; empty where it was not measured."""
        if self.onnxruntime_p50_ns is None or self.onnxruntime_p99_ns is None:
            return ""
        taken, worst = self.onnxruntime_p50_ns / 1e6, self.onnxruntime_p99_ns / 1e6
        faster = self.onnxruntime_p50_ns / self.p50_ns
        return f"onnxruntime float32: {taken:.4f} ms (p99 {worst:.4f} ms), this build {faster:.2f} times as fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a build promised and what it does.

    Attributes:
        promises: Each bound with its prediction and its measurement.
        networks: What was measured, by network.
        attempts: Measurements made; more than one where the machine's speed had drifted.
        build: Folder of the build.
    """

    promises: tuple[Promise, ...]
    networks: tuple[Measured, ...]
    attempts: int
    build: str

    @property
    def ok(self) -> bool:
        """Whether every bound is kept."""
        return all(promise.kept for promise in self.promises)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Networks whose control still ran at another speed than when the table was measured."""
        return tuple(n.name for n in self.networks if n.drift is not None and abs(n.drift) > DRIFT)

    def to_json(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        return {
            "kind": _KIND,
            "ok": self.ok,
            "build": self.build,
            "attempts": self.attempts,
            "drifted": list(self.drifted),
            "promises": [
                {**{name: getattr(p, name) for name in Promise.__slots__}, "kept": p.kept} for p in self.promises
            ],
            "networks": [{name: getattr(n, name) for name in Measured.__slots__} for n in self.networks],
        }

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Report:
        """Read a report that ``write`` wrote.

        Raises:
            InputError: The file cannot be read, or is no report.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found["kind"] != _KIND:
                raise InputError(f"{path}: not a report, but a {found['kind']!r}")
            promises = [{k: v for k, v in p.items() if k != "kept"} for p in found["promises"]]
            return cls(
                promises=tuple(Promise(**p) for p in promises),
                networks=tuple(Measured(**n) for n in found["networks"]),
                attempts=found["attempts"],
                build=found["build"],
            )
        except OSError as error:
            raise InputError(f"{path}: the report cannot be read: {error.strerror}") from None
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a whole report: {error!r}") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON; readers never see half a file."""
        write_aside(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    def __str__(self) -> str:
        """Show promised beside measured."""
        head = ("promise", "bound", "predicted", "measured", "")
        rows = [
            (
                promise.what,
                _show(promise.bound, promise.unit),
                _show(promise.predicted, promise.unit),
                _show(promise.measured, promise.unit),
                "kept" if promise.kept else "BROKEN",
            )
            for promise in self.promises
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if place in (0, len(head) - 1) else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        for n in self.networks:
            lines.append(
                f"{n.name}: p50 {n.p50_ns / 1e3:.1f} us, p99 {n.p99_ns / 1e3:.1f} us over {n.runs} runs, "
                f"{n.control_p50_ns / n.p50_ns:.2f} times as fast as exact ({n.control_p50_ns / 1e3:.1f} us)"
            )
            if n.against_onnxruntime:
                lines.append(f"{n.name}: {n.against_onnxruntime}")
            lines.append(
                f"{n.name}: top-1 {n.top1:.2f} % on {n.images} test images, exact {n.exact_top1:.2f} %, "
                f"change {n.top1_change:+.2f} +- {n.top1_change_std:.2f} points; "
                f"loss {n.loss:+.4f} +- {n.loss_std:.4f}, predicted {n.predicted_loss:.4f}"
            )
            if n.against_expected:
                lines.append(f"{n.name}: {n.against_expected}")
        lines.extend(
            f"{name}: the exact build runs at another speed than when the table was measured" for name in self.drifted
        )
        lines.append("every bound is kept" if self.ok else "a bound is broken")
        return "\n".join(lines)


def _show(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.4f} ms" if unit == "ns" else f"{value / 2**20:.4f} MiB"


def verify(build: str | os.PathLike[str], *, data: str | os.PathLike[str] | Dataset) -> Report:
    """Measure a build in a fresh process and hold it against what was promised.

    The exact build is timed in the same rounds.  Where it runs more than 5 % faster or slower than when the cost table
    was measured, the machine has changed, not the plan: the measurement is repeated, at most five times, and the
    last one stands, marked.

    Args:
        build: Folder of the build.
        data: Labelled images, as a path or as read from one; the test images are used.

    Returns:
        The report.

    Raises:
        InputError: The folder holds no build, its artefact cannot be loaded, or the data do not fit.
    """
    from planner import dataset as datasets
    from planner.tvm_config import FILE_NAME, BuildConfig

    folder = Path(build)
    config = BuildConfig.read(folder / FILE_NAME)
    for name in (config.module, config.exact_module):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; the build is not whole, build it again")
    found = datasets.read(data) if isinstance(data, str | os.PathLike) else data
    if not found.source:
        raise InputError("the data were not read from a file; expected a path, for a fresh process to read")
    _check(folder, config, found)
    for attempt in range(1, ATTEMPTS + 1):
        raw = _measure(folder, Path(found.source), config.threads)
        report = _report(folder, config, raw, attempt)
        if not report.drifted:
            break
        logger.warning("attempt %d: the control of %s has drifted", attempt, ", ".join(report.drifted))
    return report


def _check(folder: Path, config: BuildConfig, data: Dataset) -> None:
    """Refuse images that do not fit the networks, before a process is started."""
    from planner import graph

    for network in config.networks:
        exact = graph.read(folder / network.exact_onnx, name=network.name)
        data.check_against(input_shape=exact.input_shape, classes=exact.classes, model=network.name)


def _measure(folder: Path, data: Path, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "figures.json"
        command = [sys.executable, "-m", "planner.remeasure", str(folder.resolve()), str(data.resolve()), str(output)]
        environment = {**os.environ, "TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(  # noqa: S603 - our own module, with paths that were checked
            command, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise InputError(f"{folder}: the build cannot be measured:\n{done.stderr.strip()[-2000:]}")
        figures: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return figures


def _report(folder: Path, config: BuildConfig, raw: dict[str, Any], attempts: int) -> Report:
    promises, networks = [], []
    for network in config.networks:
        figures = raw[network.name]
        expected = network.exact_latency_ns
        control = figures["control"]["p50_ns"]
        promises.append(
            Promise(
                what=f"latency of {network.name}",
                bound=network.latency_bound_ns,
                predicted=network.latency_ns,
                measured=figures["network"]["quantile_ns"],
                unit="ns",
            )
        )
        networks.append(
            Measured(
                name=network.name,
                p50_ns=figures["network"]["p50_ns"],
                p99_ns=figures["network"]["p99_ns"],
                control_p50_ns=control,
                drift=control / expected - 1 if expected else None,
                predicted_loss=network.loss,
                onnxruntime_p50_ns=figures.get("onnxruntime", {}).get("p50_ns"),
                onnxruntime_p99_ns=figures.get("onnxruntime", {}).get("p99_ns"),
                **_expected(network),
                **{
                    name: figures[name]
                    for name in (
                        "runs", "weight_bytes", "arena_bytes", "loss", "loss_std",
                        "top1", "exact_top1", "top1_change", "top1_change_std", "images",
                    )
                },
            )
        )  # fmt: skip
    promises.append(
        Promise(
            what="memory",
            bound=config.memory_bound_bytes,
            predicted=config.memory_bytes,
            measured=_memory(config, networks),
            unit="bytes",
        )
    )
    return Report(promises=tuple(promises), networks=tuple(networks), attempts=attempts, build=str(folder))


def _expected(network: NetworkConfig) -> dict[str, Any]:
    """Return what the plan expects of a network's accuracy, as fields of `Measured`."""
    if network.expected is None:
        return {}
    return {
        "expected_loss": network.expected.loss,
        "expected_loss_std": network.expected.loss_std,
        "expected_top1": network.expected.top1_change,
        "expected_top1_std": network.expected.top1_std,
    }


def _memory(config: BuildConfig, networks: Sequence[Measured]) -> int:
    arenas = [n.arena_bytes for n in networks]
    return sum(n.weight_bytes for n in networks) + (max(arenas) if config.arena == "shared" else sum(arenas))
