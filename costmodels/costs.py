"""What a choice costs, and how a model's costs hang together: nanoseconds, bytes and loss of accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from costmodels.checks import check_name, first_twice, real, whole
from costmodels.composing import arena_of
from costmodels.errors import TableError
from costmodels.interactions import Interactions
from costmodels.scripts import ModelScripts

__all__ = ["ChoiceCost", "Conversion", "EdgeCosts", "Format", "LayerCosts", "ModelCosts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Describe a tensor between two layers: element type, memory layout, and which channels are left.

    The layout ``any`` meets every layout without a conversion; the mask ``""`` means that no channel is
    removed.

    >>> Format(dtype="int8").meets(Format(dtype="int8", layout="NCHW16c"))
    True
    """

    dtype: str = "float32"
    layout: str = "any"
    mask: str = ""

    def __post_init__(self) -> None:
        """Refuse anything but text."""
        for name in ("dtype", "layout", "mask"):
            if not isinstance(getattr(self, name), str):
                raise TableError(f"format {name} is {getattr(self, name)!r}; expected text")

    def meets(self, other: Format) -> bool:
        """Tell whether a tensor of this format can be read as the other as it lies."""
        same_layout = self.layout == other.layout or "any" in (self.layout, other.layout)
        return self.dtype == other.dtype and self.mask == other.mask and same_layout

    def __str__(self) -> str:
        """Write the parts that say something."""
        return "/".join(part for part in (self.dtype, self.layout, self.mask) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceCost:
    """State what one choice of one layer costs.

    Attributes:
        name: Name of the choice, such as ``exact`` or ``lowrank@0.25``.
        latency_ns: Time it takes, nanoseconds.
        weight_bytes: Bytes of its weights in the artefact.
        loss: Increase of the mean cross-entropy over the exact network, not below 0.
        activation_bytes: Bytes alive while it runs: inputs, output and workspace, at most, whatever its neighbours do.
        energy_nj: Energy, nanojoules, where it was measured.
        latency_std_ns: Standard deviation of the latency, nanoseconds.
        loss_raw: The loss as measured, which noise can make negative.
        loss_std: Standard error of the loss.
        top1_change: Change of the top-1 accuracy that is expected, points; negative is worse.
        top1_change_std: Standard error of that change, points.
        in_format: What it reads.
        out_format: What it writes.
        least_activation_bytes: The same at least; None where it is no less.

    >>> ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0).latency_ns
    1000
    """

    name: str
    latency_ns: int
    weight_bytes: int
    loss: float
    activation_bytes: int = 0
    energy_nj: int | None = None
    latency_std_ns: float | None = None
    loss_raw: float | None = None
    loss_std: float | None = None
    top1_change: float | None = None
    top1_change_std: float | None = None
    in_format: Format = Format()
    out_format: Format = Format()
    least_activation_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is missing, not finite or negative, and hold plain Python numbers."""
        check_name("choice", self.name)
        try:
            for field in ("latency_ns", "weight_bytes", "activation_bytes"):
                object.__setattr__(self, field, whole(field, getattr(self, field)))
            for field in ("energy_nj", "least_activation_bytes"):
                if getattr(self, field) is not None:
                    object.__setattr__(self, field, whole(field, getattr(self, field)))
            if self.least_arena > self.activation_bytes:
                raise TableError(
                    f"least_activation_bytes is {self.least_arena}; expected at most activation_bytes, "
                    f"{self.activation_bytes}"
                )
            object.__setattr__(self, "loss", real("loss", self.loss, least=0.0))
            for field in ("latency_std_ns", "loss_std", "top1_change_std"):
                if getattr(self, field) is not None:
                    object.__setattr__(self, field, real(field, getattr(self, field), least=0.0))
            for field in ("loss_raw", "top1_change"):
                if getattr(self, field) is not None:
                    object.__setattr__(self, field, real(field, getattr(self, field)))
        except TableError as error:
            raise error.at(choice=self.name) from None

    @property
    def least_arena(self) -> int:
        """Bytes alive while it runs, at least."""
        return self.activation_bytes if self.least_activation_bytes is None else self.least_activation_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCosts:
    """List the choices of one layer.

    Attributes:
        name: Name of the layer.
        choices: Its choices, at least one, each under its own name.
        tie: Layers of one model with the same tie take the choice of the same name.
        op: Operator of the layer, for the reader.

    >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0)
    >>> LayerCosts(name="conv1", choices=(exact,)).choice("exact").weight_bytes
    64
    """

    name: str
    choices: tuple[ChoiceCost, ...]
    tie: str | None = None
    op: str = ""

    def __post_init__(self) -> None:
        """Refuse a layer without choices and a choice that is there twice."""
        check_name("layer", self.name)
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise TableError("the layer has no choices; expected at least one").at(layer=self.name)
        twice = first_twice(choice.name for choice in self.choices)
        if twice is not None:
            raise TableError("the choice is there twice").at(layer=self.name, choice=twice)
        if self.tie is not None:
            check_name("tie", self.tie)

    def choice(self, name: str) -> ChoiceCost:
        """Return the choice of that name, or raise TableError listing those that exist."""
        for choice in self.choices:
            if choice.name == name:
                return choice
        existing = ", ".join(choice.name for choice in self.choices)
        raise TableError(f"no such choice; there are: {existing}").at(layer=self.name, choice=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """State what it costs to turn a tensor of one format into another, on one edge.

    >>> Conversion(source_format=Format(dtype="int8"), target_format=Format(), latency_ns=500).loss
    0.0
    """

    source_format: Format
    target_format: Format
    latency_ns: int
    loss: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unlike masks, and costs that are not finite or negative."""
        if self.source_format.mask != self.target_format.mask:
            raise TableError(f"no conversion can turn {self.source_format} into {self.target_format}: unlike masks")
        object.__setattr__(self, "latency_ns", whole("conversion latency_ns", self.latency_ns))
        object.__setattr__(self, "loss", real("conversion loss", self.loss, least=0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCosts:
    """List what the conversions on the tensor from one layer to another cost.

    Formats that meet as they lie cost nothing unless a conversion says otherwise; unlike masks cannot meet.

    Attributes:
        source: The layer that makes the tensor.
        target: The layer that reads it.
        conversions: What turning one format into another costs.
        joins: Whether the target only adds the tensor to what it makes.  Then the tensor has the channels that the
            target writes, not those that it reads.

    >>> EdgeCosts(source="conv1", target="conv2").cost(Format(), Format()).latency_ns
    0
    """

    source: str
    target: str
    conversions: tuple[Conversion, ...] = ()
    joins: bool = False

    def __post_init__(self) -> None:
        """Refuse an edge from a layer to itself and a conversion that is there twice."""
        object.__setattr__(self, "conversions", tuple(self.conversions))
        if self.source == self.target:
            raise TableError("an edge leads from a layer to itself").at(edge=str(self))
        twice = first_twice(f"{c.source_format} -> {c.target_format}" for c in self.conversions)
        if twice is not None:
            raise TableError(f"the conversion {twice} is there twice").at(edge=str(self))
        if not isinstance(self.joins, bool):
            raise TableError(f"joins is {self.joins!r}; expected true or false").at(edge=str(self))

    def read(self, choice: ChoiceCost) -> Format:
        """Return the format that the target reads this edge's tensor in under a choice.

        >>> half = ChoiceCost(name="exact", latency_ns=1, weight_bytes=0, loss=0.0, out_format=Format(mask="0.5"))
        >>> [EdgeCosts(source="a", target="b", joins=joins).read(half).mask for joins in (False, True)]
        ['', '0.5']
        """
        return replace(choice.in_format, mask=choice.out_format.mask) if self.joins else choice.in_format

    def cost(self, source_format: Format, target_format: Format) -> Conversion | None:
        """Return what it costs that these formats meet, or None where they cannot.

        Raises:
            TableError: They can be converted, but what that costs is missing.
        """
        for conversion in self.conversions:
            if (conversion.source_format, conversion.target_format) == (source_format, target_format):
                return conversion
        if source_format.mask != target_format.mask:
            return None
        if source_format.meets(target_format):
            return Conversion(source_format=source_format, target_format=target_format, latency_ns=0)
        raise TableError(f"the cost of converting {source_format} to {target_format} is missing").at(edge=str(self))

    def __str__(self) -> str:
        """Write the edge as an arrow."""
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCosts:
    """Hold the costs of one model, in the order of its layers.

    The latency that a plan promises is ``overhead_ns`` plus the sum of ``ceil(scale * reserve * latency_ns)`` over the
    chosen plus conversions, which have the reserve in them.  What is expected of it is the same without the reserve.

    Attributes:
        name: Name of the model, without ``=`` and ``,``.
        layers: Its layers in topological order.
        edges: Tensors between layers whose formats matter.
        overhead_ns: Time the network takes besides its layers, nanoseconds.
        scale: What the sum of single layers is multiplied by inside the network.
        reserve: What is multiplied in besides, so that networks do not take longer than promised; at least 1.
        fixed_bytes: Bytes of weights that no choice changes.
        exact_latency_ns: Latency of the exact build as measured whole, nanoseconds.
        reference_bytes: What 100 % of memory is: float32 parameters and the arena of the exact build.
        interactions: What choices lose together, where that was measured.
        memory: What layers become in memory; without it the arena is the greatest ``activation_bytes`` of a plan.

    >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0)
    >>> model = ModelCosts(name="m", layers=(LayerCosts(name="conv1", choices=(exact,)),), scale=1.5)
    >>> model.scaled_ns(exact)
    1500
    """

    name: str
    layers: tuple[LayerCosts, ...]
    edges: tuple[EdgeCosts, ...] = ()
    overhead_ns: int = 0
    scale: float = 1.0
    reserve: float = 1.0
    fixed_bytes: int = 0
    exact_latency_ns: int | None = None
    reference_bytes: int | None = None
    interactions: Interactions | None = None
    memory: ModelScripts | None = None

    def __post_init__(self) -> None:
        """Refuse names no command line can hold, duplicates, dangling edges and empty ties."""
        check_name("model", self.name)
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "edges", tuple(self.edges))
        try:
            if "=" in self.name or "," in self.name:
                raise TableError("a model's name has no '=' and no ','")
            if not self.layers:
                raise TableError("the model has no layers; expected at least one")
            for field in ("overhead_ns", "fixed_bytes", "exact_latency_ns", "reference_bytes"):
                if getattr(self, field) is not None or field in ("overhead_ns", "fixed_bytes"):
                    object.__setattr__(self, field, whole(field, getattr(self, field)))
            object.__setattr__(self, "scale", real("scale", self.scale, least=0.0))
            if self.scale == 0.0:
                raise TableError("scale is 0; expected a positive number")
            object.__setattr__(self, "reserve", real("reserve", self.reserve, least=1.0))
            twice = first_twice(layer.name for layer in self.layers)
            if twice is not None:
                raise TableError("the layer is there twice").at(layer=twice)
            self._check_ties()
            self._check_edges()
            self._check_memory()
        except TableError as error:
            raise error.at(model=self.name) from None

    def _check_ties(self) -> None:
        for tie, layers in self.ties().items():
            if not self.common_choices(layers):
                names = ", ".join(layer.name for layer in layers)
                raise TableError(f"no choice is offered by every layer of the tie {tie!r} ({names})")

    def _check_edges(self) -> None:
        by_name = {layer.name: layer for layer in self.layers}
        twice = first_twice(str(edge) for edge in self.edges)
        if twice is not None:
            raise TableError("the edge is there twice").at(edge=twice)
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in by_name:
                    raise TableError(f"there is no layer {end!r} in the model").at(edge=str(edge))
            outs = {choice.out_format for choice in by_name[edge.source].choices}
            ins = {edge.read(choice) for choice in by_name[edge.target].choices}
            meetings = [edge.cost(out, into) for out in outs for into in ins]
            if all(meeting is None for meeting in meetings):
                raise TableError("no two formats of the edge can meet").at(edge=str(edge))

    def _check_memory(self) -> None:
        if self.memory is None:
            return
        if [layer.name for layer in self.memory.layers] != [layer.name for layer in self.layers]:
            raise TableError("the memory scripts are not of the layers of the model, in their order")
        for layer, scripts in zip(self.layers, self.memory.layers, strict=True):
            lacking = [choice.name for choice in layer.choices if not scripts.known.get(choice.name)]
            if lacking:
                raise TableError("no memory script").at(layer=layer.name, choice=lacking[0])

    def arena_bytes(self, choices: Mapping[str, str]) -> int:
        """Return the bytes that activations need under a choice for each layer.

        Exact where memory scripts know all that meets; else never less than the greatest live set of any layer.
        """
        most = max(layer.choice(choices[layer.name]).activation_bytes for layer in self.layers)
        if self.memory is None:
            return most
        found, exact = arena_of(self.memory, tuple(choices[layer.name] for layer in self.layers))
        return (found if exact else max(found, most)) + self.memory.slack_bytes

    def ties(self) -> dict[str, tuple[LayerCosts, ...]]:
        """Group the tied layers by their tie, in the order of the model."""
        groups: dict[str, tuple[LayerCosts, ...]] = {}
        for layer in self.layers:
            if layer.tie is not None:
                groups[layer.tie] = (*groups.get(layer.tie, ()), layer)
        return groups

    @staticmethod
    def common_choices(layers: tuple[LayerCosts, ...]) -> tuple[str, ...]:
        """List the names of the choices that all of these layers offer, in the order of the first."""
        offered = [{choice.name for choice in layer.choices} for layer in layers[1:]]
        return tuple(c.name for c in layers[0].choices if all(c.name in names for names in offered))

    def layer(self, name: str) -> LayerCosts:
        """Return the layer of that name, or raise TableError listing those that exist."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        existing = ", ".join(layer.name for layer in self.layers)
        raise TableError(f"no such layer; there are: {existing}").at(model=self.name, layer=name)

    def scaled_ns(self, choice: ChoiceCost) -> int:
        """Return the latency that is promised of a choice inside this network, nanoseconds, rounded up."""
        if self.scale == self.reserve == 1.0:
            return choice.latency_ns
        return math.ceil(Fraction(self.scale) * Fraction(self.reserve) * choice.latency_ns)

    def expected_latency_ns(self, choices: Mapping[str, str]) -> float:
        """Return the latency that is expected under a choice for each layer, nanoseconds: without reserve.

        >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0)
        >>> model = ModelCosts(name="m", layers=(LayerCosts(name="a", choices=(exact,)),), overhead_ns=50, reserve=1.1)
        >>> model.expected_latency_ns({"a": "exact"}), model.scaled_ns(exact)
        (1050.0, 1101)
        """
        picked = {layer.name: layer.choice(choices[layer.name]) for layer in self.layers}
        met = [edge.cost(picked[edge.source].out_format, edge.read(picked[edge.target])) for edge in self.edges]
        converted = sum(cost.latency_ns for cost in met if cost is not None) / self.reserve
        return self.overhead_ns + self.scale * sum(choice.latency_ns for choice in picked.values()) + converted
