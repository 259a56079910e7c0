from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.tvm_config import BuildConfig, KernelConfig, LayerConfig, NetworkConfig, OptionsConfig, schema, sha256_of

SCHEMA = Path(__file__).parent.parent / "docs" / "tvm_build.schema.json"


def config() -> BuildConfig:
    layer = LayerConfig(
        name="fc", choice="exact", nodes=("fc",), latency_ns=10, weight_bytes=40, activation_bytes=24, loss=0.0
    )
    network = NetworkConfig(
        name="net",
        source_sha256="0" * 64,
        onnx="onnx/net.onnx",
        onnx_sha256="1" * 64,
        exact_onnx="onnx/net.exact.onnx",
        exact_onnx_sha256="2" * 64,
        exact_nodes={"fc": ("fc",)},
        layers=(layer,),
        latency_bound_ns=None,
        latency_ns=10,
        loss=0.0,
        exact_latency_ns=12,
        weight_bytes=40,
        weights_sha256="3" * 64,
        arena_bytes=24,
    )
    return BuildConfig(
        target={"kind": "llvm", "mcpu": "haswell", "num-cores": 1},
        threads=1,
        pipeline="planner.schedules.pipeline",
        passes=("BlockedLayout",),
        pass_context={"opt_level": 2, "config": {}},
        versions={"tvm": "0"},
        module="model.so",
        exact_module="exact.so",
        networks=(network,),
        options=OptionsConfig(winograd=False),
        exact_kernels=(),
        kernels=(KernelConfig(name="k", network="net", layer="fc", schedule="dense columns=16", workspace_bytes=0),),
        arena="shared",
        latency_quantile=0.5,
        memory_bound_bytes=100,
        memory_bytes=64,
        refit=True,
        table_digest="4" * 64,
        data_sha256="5" * 64,
    )


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    config().write(tmp_path / "tvm_build.json")
    assert BuildConfig.read(tmp_path / "tvm_build.json") == config()
    assert [p.name for p in tmp_path.iterdir()] == ["tvm_build.json"]


def test_the_schema_in_the_documentation_is_that_of_the_config() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        SCHEMA.write_text(schema(), encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == schema(), "UPDATE_GOLDEN=1 pytest tests/test_tvm_config.py writes it"


def test_every_entry_of_the_schema_says_what_it_is() -> None:
    described = json.loads(schema())
    for kind in (described, *described["$defs"].values()):
        for name, entry in kind["properties"].items():
            assert "description" in entry or name in {"kind", "version", "networks", "options"}, name


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.pop("target"), "target: Field required"),
        (lambda d: d.update(threads=0), "threads: "),
        (lambda d: d.update(kind="recipe"), "kind: "),
        (lambda d: d.update(version=2), "version: "),
        (lambda d: d.update(networks=[]), "networks: "),
        (lambda d: d.update(colour="red"), "colour: "),
        (lambda d: d["networks"][0].update(latency_ns=-1), "networks.0.latency_ns: "),
        (lambda d: d["networks"][0]["layers"][0].pop("choice"), "networks.0.layers.0.choice: "),
    ],
)
def test_a_bad_config_is_refused_and_the_entry_named(tmp_path: Path, change, expected: str) -> None:
    content = json.loads(config().model_dump_json())
    change(content)
    path = tmp_path / "tvm_build.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not a build config") as refused:
        BuildConfig.read(path)
    assert f"{path}: not a build config: {expected}" in str(refused.value)


def test_what_is_no_json_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: not a build config"):
        BuildConfig.read(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.json: the build config cannot be read"):
        BuildConfig.read(tmp_path / "b.json")
    with pytest.raises(InputError, match=r"c\.onnx: cannot be read"):
        sha256_of(tmp_path / "c.onnx")


def test_an_unknown_network_is_answered_with_those_that_exist() -> None:
    assert config().network("net").name == "net"
    with pytest.raises(InputError, match="no network 'other'; it has: net"):
        config().network("other")
