from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import networks
import numpy as np
import pytest
import tvm
from entries import image, raw, whole
from networks import Builder

from planner import compiler
from planner.artefact import Artefact
from planner.errors import InputError
from planner.schedules import choosing, naming, rules, search
from planner.schedules.families.convolution import ConvolutionRule
from planner.schedules.search_cache import SearchCache, default_path


def twins():
    """Two convolutions that differ in their weights alone, and a third of another size."""
    b = Builder((1, 16, 12, 12))
    x = b.conv("image", "first", (16, 16, 1, 1))
    x = b.conv(x, "second", (16, 16, 1, 1))
    return raw(b.model(b.conv(x, "other", (48, 16, 1, 1))))


def fused(entry):
    target = tvm.target.Target(compiler.host_target())
    return compiler.fuse_networks([entry], target), target


def test_kernels_that_differ_in_their_names_alone_have_one_signature() -> None:
    module, _ = fused(twins())
    kernels = {naming.owner(name): f for name, f in choosing.kernels(module).items() if "conv2d" in name}
    first, second, other = (search.signature(kernels[0, layer]) for layer in range(3))
    assert first == second != other


def test_a_found_schedule_is_chosen_for_all_equal_kernels_and_rebuilds_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = twins()
    module, target = fused(entry)
    # Which schedule is the fastest is the machine's business: here it is always the last one.
    monkeypatch.setattr(search, "_fastest", lambda group, target: group.texts[-1])
    found = search.search(module, target, seconds=10, cache=SearchCache(tmp_path / "c.json"))
    by_layer = {layer: [t for n, t in found.items() if naming.owner(n) == (0, layer)] for layer in range(3)}
    assert by_layer[0] == by_layer[1] != []
    compiled = compiler.compile_networks([entry], compiler.host_target(), chosen=found)
    assert {name: compiled.schedules[name] for name in found} == found
    again = compiler.compile_networks([entry], compiler.host_target(), chosen=compiled.schedules)
    assert again.schedules == compiled.schedules
    given = image(entry)
    np.testing.assert_array_equal(
        Artefact(again.executable).run("net", given), Artefact(compiled.executable).run("net", given)
    )


def test_a_network_that_was_searched_for_computes_what_onnxruntime_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = whole(networks.chain(1), tmp_path)
    compiled = compiler.compile_networks([entry], compiler.host_target(), search_s=2)
    given = networks.images(entry.model, 2)
    expected = networks.run(entry.model, given)
    np.testing.assert_allclose(Artefact(compiled.executable).run("net", given), expected, atol=1e-5)
    known = SearchCache(tmp_path / "cache" / "blinkplan" / "schedules.json").read()
    assert known
    families = {rule.FAMILY for rule in rules(tvm.target.Target(compiler.host_target()))}
    assert {text.split()[0] for text in known.values()} <= families
    assert any(text.startswith("convolution") for text in known.values())


def test_what_is_known_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, target = fused(twins())
    cache = SearchCache(tmp_path / "c.json")
    measured = []

    def fastest(group, target):
        measured.append(group.names)
        return group.texts[-1]

    monkeypatch.setattr(search, "_fastest", fastest)
    first = search.search(module, target, seconds=10, cache=cache)
    count = len(measured)
    assert count > 0
    assert search.search(module, target, seconds=10, cache=cache) == first
    assert len(measured) == count
    # Another rule, another search: what is known of a kernel holds among the schedules that were tried.
    default = ConvolutionRule.default
    monkeypatch.setattr(ConvolutionRule, "default", lambda self, kernel: {**default(self, kernel), "pixels": 1})
    search.search(module, target, seconds=10, cache=cache)
    assert len(measured) > count


def test_without_time_only_what_is_known_is_chosen(tmp_path: Path) -> None:
    module, target = fused(twins())
    assert search.search(module, target, seconds=0, cache=SearchCache(tmp_path / "c.json")) == {}
    assert not (tmp_path / "c.json").exists()


def test_a_schedule_that_computes_something_else_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, target = fused(twins())
    run = search._run
    runs = []

    def wrong(kernel, operands):
        runs.append(1)
        return run(kernel, operands) + (len(runs) > 2)

    monkeypatch.setattr(search, "_run", wrong)
    with pytest.raises(RuntimeError, match=r"kernel '.*conv2d.*' computes something else with 'convolution "):
        search.search(module, target, seconds=10, cache=SearchCache(tmp_path / "c.json"))


@pytest.mark.parametrize(
    ("default", "control", "other", "taken"),
    [
        ([10.0] * 9, [10.0] * 9, [9.0] * 9, True),
        ([10.0] * 9, [10.0] * 9, [9.95] * 9, False),  # within the margin
        ([10.0] * 9, [9.0] * 9, [8.5] * 9, False),  # the same kernel differs by more than this one does
        ([10.0] * 9, [10.0] * 9, [8.0] * 5 + [12.0] * 4, False),  # now and then slower
    ],
)
def test_a_schedule_is_taken_only_if_it_is_faster_by_more_than_the_noise(default, control, other, taken: bool) -> None:
    assert search.better(default, control, [[11.0] * 9, other]) == (1 if taken else None)


def test_the_cache_lies_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "blinkplan" / "schedules.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_path() == Path.home() / ".cache" / "blinkplan" / "schedules.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_path() == Path.home() / ".cache" / "blinkplan" / "schedules.json"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"kind": "something else", "version": 1, "schedules": {}}',
        '{"kind": "blinkplan schedules", "version": 2, "schedules": {}}',
        '{"kind": "blinkplan schedules", "version": 1, "schedules": {"a": 1}}',
    ],
)
def test_a_corrupt_cache_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    for act in (lambda: SearchCache(path).read(), lambda: SearchCache(path).add({"a": "b"})):
        with pytest.raises(InputError) as refused:
            act()
        assert f"{path}: not a cache of schedules" in str(refused.value)
    assert path.read_text() == content


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"c\.json: the cache of schedules cannot be"):
        SearchCache(tmp_path / "file" / "c.json").add({"a": "b"})


def _add(path: Path, number: int) -> None:
    for index in range(20):
        SearchCache(path).add({f"{number}/{index}": "schedule"})


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.json"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(SearchCache(path).read()) == 40
    assert set(json.loads(path.read_text())) == {"kind", "version", "schedules"}
