"""Building a plan: networks rewritten and refitted, one TVM module of them all, and the config to do it again."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import InputError
from planner.model import Model
from planner.plan import Plan
from planner.recipe import EXACT_MODULE, MODULE, Recipe, compile_folder

if TYPE_CHECKING:
    from planner.schedules import Options
    from planner.tvm_config import BuildConfig, ExpectedConfig

__all__ = ["Build", "build", "rebuild"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build on disk.

    Attributes:
        path: Its folder.
        config: What ``tvm_build.json`` in it says.
    """

    path: Path
    config: BuildConfig

    @property
    def module(self) -> Path:
        """The artefact."""
        return self.path / self.config.module

    def __str__(self) -> str:
        """Say where it is and what is in it."""
        networks = ", ".join(n.name for n in self.config.networks)
        return f"{self.module}: {networks} for {self.config.target.get('mcpu')}, {self.config.threads} thread(s)"


def build(
    plan: Plan,
    models: Sequence[Model],
    *,
    out: str | os.PathLike[str],
    target: Mapping[str, Any] | None = None,
    threads: int = 1,
    options: Options | None = None,
    search_s: float = 0.0,
) -> Build:
    """Build what a plan says.

    Args:
        plan: The plan.
        models: Its networks, each with the data that calibrates approximations and refit.
        out: Folder of the build; an earlier build there is replaced.
        target: TVM target; this machine's processor if None.
        threads: Threads that kernels may spread over.
        options: What the kernels may do beyond what the table was measured with.
        search_s: Seconds to measure schedules other than those that the heuristics choose, on this machine.

    Returns:
        The build.

    Raises:
        InputError: A network of the plan is missing, differs from the plan, or the folder cannot be written.
    """
    from planner import compiler, rewrite
    from planner.calibration import Calibration
    from planner.schedules import Options

    by_name = _matched(plan, models)
    with _Folder(Path(out)) as folder:
        (folder / "onnx").mkdir()
        rewritten = {}
        for name, model in by_name.items():
            logger.info("%s: rewriting", name)
            calibration = Calibration.of(model.graph, model.data())
            rewritten[name] = rewrite.apply(model.graph, plan.choices[name], calibration, refit=plan.refit)
        sources = []
        for name, model in by_name.items():
            new, graph = rewritten[name], model.graph
            sources.append(
                _Source(
                    name=name,
                    source_sha256=graph.source_digest,
                    onnx=_save(folder, f"onnx/{name}.onnx", new.model),
                    exact=_save(folder, f"onnx/{name}.exact.onnx", graph.model),
                    nodes=dict(new.nodes),
                    exact_nodes={layer.name: layer.nodes for layer in graph.layers},
                    activations=new.activations,
                )
            )
        chosen = dict(target) if target is not None else compiler.host_target(threads)
        if int(chosen.get("num-cores", 1)) != threads:
            raise InputError(f"the target has {chosen.get('num-cores')} cores, but {threads} threads are asked for")
        data = hashlib.sha256("".join(m.data().digest for m in by_name.values()).encode()).hexdigest()
        recipe = Recipe(target=chosen, options=options or Options(), search_s=search_s)
        config = _make(folder, sources, plan, recipe, threads, data)
        config.write(folder / "tvm_build.json")
    return Build(path=Path(out), config=config)


def rebuild(config_path: str | os.PathLike[str], *, out: str | os.PathLike[str]) -> Build:
    """Build again from a build config and the rewritten networks beside it.

    Args:
        config_path: A ``tvm_build.json``.
        out: Folder of the new build; an earlier build there is replaced.

    Returns:
        The build; its weights are the same to the byte, its kernels are scheduled as they were.

    Raises:
        InputError: The config or a network is missing or altered, a kernel is no longer what its schedule was
            written down for, or the folder cannot be written.
    """
    from planner.schedules import Options
    from planner.tvm_config import BuildConfig, sha256_of

    found = BuildConfig.read(config_path)
    beside = Path(config_path).parent
    for network in found.networks:
        for name, expected in (
            (network.onnx, network.onnx_sha256),
            (network.exact_onnx, network.exact_onnx_sha256),
        ):
            got = sha256_of(beside / name)
            if got != expected:
                raise InputError(f"{beside / name}: SHA-256 is {got[:12]}…; the build config expects {expected[:12]}…")
    with _Folder(Path(out)) as folder:
        (folder / "onnx").mkdir()
        for network in found.networks:
            for name in (network.onnx, network.exact_onnx):
                shutil.copyfile(beside / name, folder / name)
        built = compile_folder(
            folder,
            [(n.name, n.onnx, {layer.name: layer.nodes for layer in n.layers}) for n in found.networks],
            [(n.name, n.exact_onnx, n.exact_nodes) for n in found.networks],
            Recipe(
                target=found.target,
                options=Options(**found.options.model_dump()),
                schedules={k.name: k.schedule for k in found.kernels},
                exact_schedules={k.name: k.schedule for k in found.exact_kernels},
            ),
        )
        networks = []
        for network in found.networks:
            facts = built.facts[network.name]
            if facts["weights_sha256"] != network.weights_sha256:
                raise InputError(
                    f"{config_path}: the weights of {network.name} came out as {facts['weights_sha256'][:12]}…, "
                    f"expected {network.weights_sha256[:12]}…; built with other versions than {found.versions}?"
                )
            networks.append(network.model_copy(update=facts))
        config = found.model_copy(
            update={
                "networks": tuple(networks),
                "kernels": built.kernels,
                "exact_kernels": built.exact_kernels,
                "versions": _versions(),
            }
        )
        config.write(folder / "tvm_build.json")
    return Build(path=Path(out), config=config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One network on its way into a build."""

    name: str
    source_sha256: str
    onnx: tuple[str, str]
    exact: tuple[str, str]
    nodes: Mapping[str, tuple[str, ...]]
    exact_nodes: Mapping[str, tuple[str, ...]]
    activations: str


class _Folder:
    """A folder that is written aside and takes its place only when whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        path = self._path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file; expected a folder for the build")
        if path.is_dir() and any(path.iterdir()) and not (path / "tvm_build.json").exists():
            raise InputError(f"{path}: is not empty and holds no build; expected a new folder or a build to replace")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise InputError(f"{path}: the folder cannot be written: {error.strerror}") from None
        self._aside.chmod(0o755)
        return self._aside

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        if self._path.exists():
            old = self._path.with_name(f".{self._path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            self._path.rename(old)
            self._aside.rename(self._path)
            shutil.rmtree(old)
        else:
            self._aside.rename(self._path)


def _matched(plan: Plan, models: Sequence[Model]) -> dict[str, Model]:
    """Pair the plan's networks with the models, and refuse what does not fit."""
    given = {model.name: model for model in models}
    missing = [name for name in plan.choices if name not in given]
    if missing:
        raise InputError(f"the plan is for {', '.join(plan.choices)}; no model was given for {', '.join(missing)}")
    for name, choices in plan.choices.items():
        layers = [layer.name for layer in given[name].graph.layers]
        odd = sorted(set(layers) ^ set(choices))
        if odd:
            raise InputError(f"model {name!r} and the plan differ in their layers: {', '.join(odd[:5])}")
        digest = given[name].graph.source_digest
        if plan.sources.get(name, digest) != digest:
            raise InputError(
                f"model {name!r} is not the network that was measured: its file has SHA-256 {digest[:12]}…, "
                f"expected {plan.sources[name][:12]}…"
            )
        if not name.isidentifier():
            raise InputError(f"model {name!r}: a name of a TVM function is letters, digits and underscores")
    return {name: given[name] for name in plan.choices}


def _save(folder: Path, name: str, model: Any) -> tuple[str, str]:
    content = model.SerializeToString(deterministic=True)
    (folder / name).write_bytes(content)
    return name, hashlib.sha256(content).hexdigest()


def _expected(plan: Plan, name: str) -> ExpectedConfig | None:
    from planner import tvm_config

    for item in plan.predicted:
        if item.model == name:
            return tvm_config.ExpectedConfig(
                loss=item.loss, loss_std=item.loss_std, top1_change=item.top1_change, top1_std=item.top1_std
            )
    return None


def _make(folder: Path, sources: Sequence[_Source], plan: Plan, recipe: Recipe, threads: int, data: str) -> BuildConfig:
    """Compile the saved networks and write down how."""
    from planner import compiler
    from planner.tvm_config import BuildConfig, LayerConfig, NetworkConfig, OptionsConfig

    built = compile_folder(
        folder,
        [(s.name, s.onnx[0], s.nodes) for s in sources],
        [(s.name, s.exact[0], s.exact_nodes) for s in sources],
        recipe,
    )
    networks = []
    for source in sources:
        planned = [layer for layer in plan.layers if layer.model == source.name]
        layers = tuple(
            LayerConfig(
                name=layer.layer,
                choice=layer.choice,
                nodes=source.nodes[layer.layer],
                latency_ns=layer.latency_ns,
                weight_bytes=layer.weight_bytes,
                activation_bytes=layer.activation_bytes,
                loss=layer.loss,
            )
            for layer in planned
        )
        networks.append(
            NetworkConfig(
                name=source.name,
                source_sha256=source.source_sha256,
                onnx=source.onnx[0],
                onnx_sha256=source.onnx[1],
                exact_onnx=source.exact[0],
                exact_onnx_sha256=source.exact[1],
                exact_nodes=dict(source.exact_nodes),
                activations=source.activations,
                layers=layers,
                latency_bound_ns=plan.budget.latency_ns(source.name),
                latency_ns=plan.latency_ns[source.name],
                loss=sum(layer.loss for layer in planned),
                expected=_expected(plan, source.name),
                exact_latency_ns=plan.exact_latency_ns.get(source.name),
                **built.facts[source.name],
            )
        )
    return BuildConfig(
        target=dict(recipe.target),
        threads=threads,
        pipeline="planner.schedules.pipeline",
        passes=compiler.pass_names(),
        pass_context=compiler.pass_context(),
        versions=_versions(),
        module=MODULE,
        exact_module=EXACT_MODULE,
        networks=tuple(networks),
        options=OptionsConfig(**dataclasses.asdict(recipe.options)),
        kernels=built.kernels,
        exact_kernels=built.exact_kernels,
        arena=plan.budget.arena,
        latency_quantile=plan.budget.latency_quantile,
        memory_bound_bytes=plan.budget.memory_bytes,
        memory_bytes=plan.memory_bytes,
        refit=plan.refit,
        table_digest=plan.table_digest,
        data_sha256=data,
    )


def _versions() -> dict[str, str]:
    return {
        "blinkplan": version("blinkplan"),
        "tvm": version("apache-tvm"),
        "onnx": version("onnx"),
        "python": platform.python_version(),
    }
