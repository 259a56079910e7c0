"""The plan: which choice every layer takes, what that costs, and how near it is proven to the best."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from costmodels import CostTable, TableError, write_aside
from planner.budget import Budget
from planner.domination import Dominated, describe
from planner.errors import InputError
from planner.figures import Choices, exact_loss, figures
from planner.predicting import Predicted, predicted

__all__ = ["Plan", "PlannedLayer", "check", "expected_ns"]

_KIND = "blinkplan plan"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLayer:
    """What one layer takes, and what the table says that costs.

    Attributes:
        model: Name of the model.
        layer: Name of the layer.
        choice: Name of the choice.
        latency_ns: Nanoseconds inside the network, its scale included.
        weight_bytes: Bytes of weights.
        activation_bytes: Bytes alive while it runs.
        loss: Loss of this choice alone.

    >>> PlannedLayer(
    ...     model="m",
    ...     layer="conv1",
    ...     choice="exact",
    ...     latency_ns=5,
    ...     weight_bytes=7,
    ...     activation_bytes=3,
    ...     loss=0.0,
    ... ).choice
    'exact'
    """

    model: str
    layer: str
    choice: str
    latency_ns: int
    weight_bytes: int
    activation_bytes: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hold a plan; its figures come from the cost table, in exact arithmetic, not from the solver.

    Attributes:
        layers: What every layer of every model takes.
        loss: Sum of the losses of all models.
        bound: No plan within the budget has less of the objective (loss, ms or MiB); None without a bound.
        gap: The share of the objective that a better plan could save at most: ``(loss - bound) / loss``.
        status: ``optimal`` where that is proven, else ``feasible``.
        objective: What was minimised: ``loss``, ``worst`` (the loss of the model that loses most), ``latency`` (ms of
            all models together) or ``memory`` (MiB).
        latency_ns: Nanoseconds of each model, at the budget's quantile.
        weight_bytes: Bytes of weights of each model.
        arena_bytes: Bytes of activations, shared or separate as the budget says.
        budget: What was allowed.
        table_digest: SHA-256 of the table it was made from.
        solver: Name of the solver.
        how: What the solver says of how it was found: who gave the choice, who the bound.
        seconds: Wall-clock seconds that planning took.
        versions: Versions of what it was made with.
        refit: Whether later layers are to be refitted, as in the table.
        exact_latency_ns: Latency of the exact build of each model that the table knows it of, nanoseconds.
        sources: SHA-256 of the network's file for each model that the table knows it of.
        dropped: Choices that were left out beforehand, because another one of their layer is as good in every cost.
        predicted: What each model is expected to lose, interactions counted, where the table knows them.
        expected_ns: Nanoseconds that each model is expected to take in the median.  What is promised has the table's
            reserve on top, so that a network that is measured keeps it.

    >>> from costmodels import ChoiceCost, LayerCosts, ModelCosts
    >>> from planner.planning import plan
    >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0)
    >>> table = CostTable(models=(ModelCosts(name="m", layers=(LayerCosts(name="conv1", choices=(exact,)),)),))
    >>> plan(table, Budget(latency_ms=1)).choices
    {'m': {'conv1': 'exact'}}
    """

    layers: tuple[PlannedLayer, ...]
    loss: float
    bound: float | None
    gap: float | None
    status: str
    objective: str
    latency_ns: dict[str, int] = field(hash=False)
    weight_bytes: dict[str, int] = field(hash=False)
    arena_bytes: int
    budget: Budget
    table_digest: str
    solver: str
    how: str = field(default="", compare=False)
    seconds: float = field(default=0.0, compare=False)
    versions: dict[str, str] = field(default_factory=dict, compare=False, hash=False)
    refit: bool = False
    exact_latency_ns: dict[str, int] = field(default_factory=dict, hash=False)
    sources: dict[str, str] = field(default_factory=dict, hash=False)
    dropped: tuple[Dominated, ...] = ()
    predicted: tuple[Predicted, ...] = ()
    expected_ns: dict[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse a plan that contradicts itself."""
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "dropped", tuple(self.dropped))
        object.__setattr__(self, "predicted", tuple(self.predicted))
        if self.status not in ("optimal", "feasible"):
            raise InputError(f"the status of a plan is {self.status!r}; expected 'optimal' or 'feasible'")
        if {layer.model for layer in self.layers} != set(self.latency_ns):
            raise InputError("the plan's layers and latencies are not of the same models")

    @property
    def choices(self) -> dict[str, dict[str, str]]:
        """What runs: for each model, the choice of each layer."""
        found: dict[str, dict[str, str]] = {model: {} for model in self.latency_ns}
        for layer in self.layers:
            found[layer.model][layer.layer] = layer.choice
        return found

    @property
    def latency_ms(self) -> dict[str, float]:
        """Milliseconds of each model."""
        return {model: taken / 10**6 for model, taken in self.latency_ns.items()}

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and activations of all models together."""
        return sum(self.weight_bytes.values()) + self.arena_bytes

    @property
    def memory_mib(self) -> float:
        """MiB of weights and activations of all models together."""
        return self.memory_bytes / 2**20

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan that ``write`` wrote.

        Raises:
            InputError: The file cannot be read, or is no plan.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: the plan cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{path}: not a plan: {error}") from None
        try:
            return _from_json(found)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: not a whole plan: {error!r}") from None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "kind": _KIND,
            "version": _VERSION,
            "choices": self.choices,
            "loss": self.loss,
            "bound": self.bound,
            "gap": self.gap,
            "status": self.status,
            "objective": self.objective,
            "latency_ms": self.latency_ms,
            "memory_mib": self.memory_mib,
            "latency_ns": self.latency_ns,
            "memory_bytes": self.memory_bytes,
            "weight_bytes": self.weight_bytes,
            "arena_bytes": self.arena_bytes,
            "budget": self.budget.to_json(),
            "table_digest": self.table_digest,
            "solver": self.solver,
            "how": self.how,
            "seconds": self.seconds,
            "versions": self.versions,
            "refit": self.refit,
            "exact_latency_ns": self.exact_latency_ns,
            "sources": self.sources,
            "dropped": [asdict(item) for item in self.dropped],
            "predicted": [asdict(item) for item in self.predicted],
            "expected_ns": self.expected_ns,
            "layers": [{name: getattr(layer, name) for name in _LAYER_KEYS} for layer in self.layers],
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON; readers never see half a file.

        Raises:
            InputError: The file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        try:
            write_aside(path, text)
        except OSError as error:
            raise InputError(f"{path}: the plan cannot be written: {error.strerror or error}") from None

    def __str__(self) -> str:
        """Show the plan layer by layer, then its figures beside the budget."""
        width = max(5, *(len(layer.layer) for layer in self.layers))
        choice = max(6, *(len(layer.choice) for layer in self.layers))
        lines: list[str] = []
        for model in self.latency_ns:
            lines += ["", f"{model}"] if lines else [f"{model}"]
            heads = f"{'latency us':>12} {'weights KiB':>12} {'loss':>10}"
            lines.append(f"  {'layer':<{width}}  {'choice':<{choice}} {heads}")
            lines += [
                f"  {layer.layer:<{width}}  {layer.choice:<{choice}} {layer.latency_ns / 1e3:>12.2f} "
                f"{layer.weight_bytes / 1024:>12.2f} {layer.loss:>10.3g}"
                for layer in self.layers
                if layer.model == model
            ]
        lines.append("")
        for model, taken in self.latency_ns.items():
            expected = self.expected_ns.get(model, taken)
            lines.append(
                _beside(f"latency of {model}", taken, self.budget.latency_ns(model), 10**6, "ms")
                + (f", {expected / 10**6:.6g} ms expected" if expected != taken else "")
            )
        lines.append(_beside("memory", self.memory_bytes, self.budget.memory_bytes, 2**20, "MiB"))
        gap = "no bound" if self.gap is None else f"gap {100 * self.gap:.4g} %"
        solver = f"{self.solver} ({self.how})" if self.how else self.solver
        lines.append(f"loss {self.loss:.6g}, {self.status} by {solver}, {gap} ({self.objective} minimised)")
        lines += [str(item) for item in self.predicted]
        if self.dropped:
            lines.append(describe(self.dropped))
        return "\n".join(lines)


def check(plan: Plan, table: CostTable) -> tuple[str, ...]:
    """Check a plan against its table, without a solver: every figure, every bound, and its proof.

    Args:
        plan: The plan.
        table: The table that it says it was made from.

    Returns:
        What is wrong, in words; empty where nothing is.
    """
    wrong = []
    if plan.table_digest != table.digest:
        wrong.append(f"the plan was made from the table {plan.table_digest[:12]}, not from {table.digest[:12]}")
    if plan.refit != table.refit:
        wrong.append(f"refit is {plan.refit} in the plan and {table.refit} in the table")
    try:
        exact = figures(table, plan.choices, plan.budget)
    except (InputError, TableError) as error:
        return (*wrong, str(error))
    wrong += exact.broken(plan.budget)
    said: list[tuple[str, object, object]] = [
        ("loss", plan.loss, float(exact.loss)),
        ("latency_ns", plan.latency_ns, exact.latency_ns),
        ("weight_bytes", plan.weight_bytes, exact.weight_bytes),
        ("arena_bytes", plan.arena_bytes, exact.arena_bytes),
    ]
    if plan.expected_ns:
        said.append(("expected_ns", plan.expected_ns, expected_ns(table, plan.choices)))
    if plan.predicted:
        said.append(("predicted", plan.predicted, predicted(table, plan.choices)))
    for layer in plan.layers:
        model = table.model(layer.model)
        cost = model.layer(layer.layer).choice(layer.choice)
        said += [
            (f"latency_ns of {layer.model}/{layer.layer}", layer.latency_ns, model.scaled_ns(cost)),
            (f"weight_bytes of {layer.model}/{layer.layer}", layer.weight_bytes, cost.weight_bytes),
            (
                f"activation_bytes of {layer.model}/{layer.layer}",
                layer.activation_bytes,
                cost.activation_bytes,
            ),
            (f"loss of {layer.model}/{layer.layer}", exact_loss(layer.loss), exact_loss(cost.loss)),
        ]
    wrong += [f"{what} is {got} in the plan; the table gives {is_}" for what, got, is_ in said if got != is_]
    value = {
        "loss": plan.loss,
        "worst": float(max(exact.losses.values())),
        "latency": sum(plan.latency_ms.values()),
        "memory": plan.memory_mib,
    }[plan.objective]
    if plan.bound is not None and plan.bound > value * (1 + 1e-12):
        wrong.append(f"the bound {plan.bound} lies above the {plan.objective} {value}")
    if plan.status == "optimal" and (plan.gap is None or plan.gap > 1e-9):
        wrong.append(f"the plan is called optimal with the gap {plan.gap}")
    return tuple(wrong)


def expected_ns(table: CostTable, choices: Choices) -> dict[str, int]:
    """Return the nanoseconds that each model is expected to take in the median under choices, without reserve."""
    return {model.name: round(model.expected_latency_ns(choices[model.name])) for model in table.models}


_PLAN_KEYS = (
    *("loss", "bound", "gap", "status", "objective", "latency_ns", "weight_bytes", "arena_bytes"),
    *("table_digest", "solver", "seconds", "versions", "refit", "exact_latency_ns", "sources"),
)
_LAYER_KEYS = ("model", "layer", "choice", "latency_ns", "weight_bytes", "activation_bytes", "loss")


def _from_json(found: Any) -> Plan:
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise InputError(f'not a plan: expected an object with "kind": "{_KIND}"')
    if found.get("version") != _VERSION:
        raise InputError(f"the plan has version {found.get('version')!r}; expected {_VERSION}")
    plan = Plan(
        layers=tuple(PlannedLayer(**{name: layer[name] for name in _LAYER_KEYS}) for layer in found["layers"]),
        budget=Budget(**found["budget"]),
        # Plans of older versions leave nothing out, and predict nothing.
        dropped=tuple(Dominated(**item) for item in found.get("dropped", [])),
        predicted=tuple(Predicted(**item) for item in found.get("predicted", [])),
        expected_ns=found.get("expected_ns", {}),
        how=found.get("how", ""),
        **{name: found[name] for name in _PLAN_KEYS},
    )
    derived: Mapping[str, object] = {
        "choices": plan.choices,
        "latency_ms": plan.latency_ms,
        "memory_mib": plan.memory_mib,
        "memory_bytes": plan.memory_bytes,
    }
    for name, value in derived.items():
        if found[name] != value:
            raise InputError(f"not a plan that hangs together: {name} does not agree with the rest")
    return plan


def _beside(what: str, taken: int, allowed: int | None, unit: int, name: str) -> str:
    limit = "" if allowed is None else f" of {allowed / unit:.6g} allowed"
    return f"{what}: {taken / unit:.6g} {name}{limit}"
