"""The TVM build config: everything that a build needs besides the rewritten networks beside it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from costmodels import write_aside
from planner.errors import InputError

__all__ = ["FILE_NAME", "BuildConfig", "KernelConfig", "LayerConfig", "NetworkConfig", "OptionsConfig", "sha256_of"]

FILE_NAME = "tvm_build.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayerConfig(_Strict):
    """One layer as it is built."""

    name: str = Field(description="name of the layer: of its anchor node in the source network")
    choice: str = Field(description="what runs: exact, or an approximation")
    nodes: tuple[str, ...] = Field(description="nodes of the rewritten network that the layer became")
    latency_ns: int = Field(ge=0, description="predicted time inside the network, nanoseconds")
    weight_bytes: int = Field(ge=0, description="predicted bytes of weights in the artefact")
    activation_bytes: int = Field(ge=0, description="predicted bytes alive while it runs")
    loss: float = Field(ge=0, description="predicted increase of the mean cross-entropy by this choice alone")


class OptionsConfig(_Strict):
    """What the kernels were allowed to do."""

    winograd: bool = Field(description="whether 3x3 convolutions may be computed by Winograd's algorithm")


class KernelConfig(_Strict):
    """One kernel of a module and how it was scheduled; building again schedules it so."""

    name: str = Field(description="name of the function in the module")
    network: str = Field(description="network it belongs to")
    layer: str = Field(description="layer it belongs to")
    schedule: str = Field(description="kernel family and the parameters of its schedule")
    workspace_bytes: int = Field(ge=0, description="bytes it allocates for itself beyond the stack")


class ExpectedConfig(_Strict):
    """What a network is expected to lose, what its choices lose together counted in."""

    loss: float = Field(description="loss of all choices together")
    loss_std: float = Field(ge=0, description="its standard error")
    top1_change: float = Field(description="change of the top-1 accuracy, points; negative is worse")
    top1_std: float = Field(ge=0, description="its standard error, points")


class NetworkConfig(_Strict):
    """One network of the module."""

    name: str = Field(description="name of the network and of its entry in the module")
    source_sha256: str = Field(description="SHA-256 of the source ONNX file")
    onnx: str = Field(description="the rewritten network, relative to this file")
    onnx_sha256: str = Field(description="SHA-256 of that file")
    exact_onnx: str = Field(description="the exact network, folded, relative to this file: the control")
    exact_onnx_sha256: str = Field(description="SHA-256 of that file")
    exact_nodes: dict[str, tuple[str, ...]] = Field(description="nodes of each layer of the exact network")
    layers: tuple[LayerConfig, ...] = Field(description="layers in topological order")
    activations: str = Field(default="", description="how grids of tensors of bytes were placed; empty where none are")
    latency_bound_ns: int | None = Field(description="bound on the latency, nanoseconds; null where it does not bind")
    latency_ns: int = Field(ge=0, description="predicted latency, nanoseconds")
    loss: float = Field(ge=0, description="predicted loss, the sum over its layers")
    expected: ExpectedConfig | None = Field(
        default=None, description="what it is expected to lose; null where the table does not say"
    )
    exact_latency_ns: int | None = Field(description="latency of the exact build when the table was measured")
    weight_bytes: int = Field(ge=0, description="bytes of constants in the artefact as built")
    weights_sha256: str = Field(description="SHA-256 over the constants in the order in which kernels read them")
    arena_bytes: int = Field(ge=0, description="bytes for activations as built, input and output included")


class BuildConfig(_Strict):
    """A build: from this file and the rewritten networks beside it comes the same artefact on another machine."""

    kind: Literal["blinkplan tvm build"] = "blinkplan tvm build"
    version: Literal[1] = 1
    target: dict[str, Any] = Field(description="the TVM target, in full")
    threads: int = Field(ge=1, description="threads that the kernels spread over")
    pipeline: str = Field(description="name of the pipeline")
    passes: tuple[str, ...] = Field(description="passes in the order in which they ran")
    pass_context: dict[str, Any] = Field(description="options of TVM's PassContext")
    versions: dict[str, str] = Field(description="versions that the build was made with")
    module: str = Field(description="the artefact, relative to this file")
    exact_module: str = Field(description="the exact build, the control of every measurement, relative to this file")
    networks: tuple[NetworkConfig, ...] = Field(min_length=1)
    options: OptionsConfig
    kernels: tuple[KernelConfig, ...] = Field(description="kernels of the module")
    exact_kernels: tuple[KernelConfig, ...] = Field(description="kernels of the exact build")
    arena: Literal["shared", "separate"] = Field(description="whether networks share the memory of activations")
    latency_quantile: float = Field(ge=0.5, lt=1, description="quantile of the latency that must keep its bound")
    memory_bound_bytes: int | None = Field(description="bound on the memory of all networks; null where none")
    memory_bytes: int = Field(ge=0, description="predicted memory of all networks")
    refit: bool = Field(description="whether layers behind an approximated one were refitted")
    table_digest: str = Field(description="SHA-256 of the cost table that the plan was made from")
    data_sha256: str = Field(description="digest of the calibration data")

    def network(self, name: str) -> NetworkConfig:
        """Give a network by name.

        Raises:
            InputError: There is none; the message lists those that exist.
        """
        for network in self.networks:
            if network.name == name:
                return network
        existing = ", ".join(n.name for n in self.networks)
        raise InputError(f"the build has no network {name!r}; it has: {existing}")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> BuildConfig:
        """Read a build config.

        Raises:
            InputError: The file cannot be read or is no build config; the entry is named.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: the build config cannot be read: {error.strerror}") from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(
                f"{path}: not a build config: {where}: {first['msg']} ({error.error_count()} errors)"
            ) from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the build config; readers never see half a file."""
        write_aside(path, self.model_dump_json(indent=1) + "\n")


def schema() -> str:
    """Give the JSON schema of the build config, as docs/tvm_build.schema.json holds it."""
    return json.dumps(BuildConfig.model_json_schema(), indent=1, sort_keys=True) + "\n"


def sha256_of(path: Path) -> str:
    """Hash a file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
