from __future__ import annotations

import itertools
from pathlib import Path

import networks
import numpy as np
import pytest
from entries import compiled, image, raw, whole
from networks import Builder

from planner.artefact import Artefact
from planner.errors import InputError


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory):
    entry = whole(networks.residual(), tmp_path_factory.mktemp("residual"))
    return entry, compiled(entry)[1]


def test_alive_bytes_of_a_chain_are_those_counted_by_hand() -> None:
    b = Builder((1, 1, 10, 100))
    sizes = [1000, 10, 1, 900, 900]
    x = b.add("Flatten", ["image"], name="flat")
    for index, (read, written) in enumerate(itertools.pairwise(sizes)):
        x = b.add("MatMul", [x, b.weights((read, written), f"w{index}")], name=f"m{index}")
    entry = raw(b.model(x))
    trace = compiled(entry)[1].trace("net", image(entry))
    assert trace.input_bytes == 4000
    assert trace.weight_bytes >= 4 * (10000 + 10 + 900 + 810000)
    # The input stays, and the last product reads 900 and writes 900 numbers.
    assert max(step.alive for step in trace.steps) == 4000 + 2 * 3600
    assert trace.activation_bytes == 4000 + sum(trace.storages) >= 4000 + 2 * 3600


def test_what_is_alive_never_exceeds_the_arena(residual) -> None:
    entry, artefact = residual
    trace = artefact.trace("net", image(entry))
    assert trace.activation_bytes >= max(step.alive for step in trace.steps)


def test_a_constant_that_two_kernels_read_counts_once(residual) -> None:
    entry, artefact = residual
    trace = artefact.trace("net", image(entry))
    handed = {address: size for step in trace.steps for address, size in step.constants}
    assert trace.weight_bytes == sum(handed.values())


def test_the_hash_is_of_the_weights_and_not_of_the_image(residual, tmp_path: Path) -> None:
    entry, artefact = residual
    assert artefact.weights_sha256("net", image(entry, 0)) == artefact.weights_sha256("net", image(entry, 1))
    model = networks.residual()
    constant = next(c for c in model.graph.initializer if c.name == "fc.b")
    values = np.frombuffer(constant.raw_data, np.float32).copy()
    values[0] += 1
    constant.raw_data = values.tobytes()
    other = whole(model, tmp_path)
    assert compiled(other)[1].weights_sha256("net", image(other)) != artefact.weights_sha256("net", image(entry))


def test_every_kernel_call_has_a_timer_on_operands_of_its_own(residual) -> None:
    entry, artefact = residual
    timers = artefact.kernel_timers("net", image(entry), number=2)
    assert [name for name, _ in timers] == [step.kernel for step in artefact.trace("net", image(entry)).steps]
    assert all(timer() > 0 for _, timer in timers)


def test_as_many_runs_are_timed_as_were_asked_for(residual) -> None:
    entry, artefact = residual
    times = artefact.latencies("net", image(entry), runs=7)
    assert times.shape == (7,)
    assert np.all(times > 0)


def test_watching_a_run_leaves_the_next_one_unwatched(residual) -> None:
    entry, artefact = residual
    before = artefact.run("net", image(entry))
    first, second = (artefact.trace("net", image(entry)) for _ in range(2))
    assert len(first.steps) == len(second.steps)
    np.testing.assert_array_equal(artefact.run("net", image(entry)), before)


def test_a_missing_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.so: no such file"):
        Artefact.load(tmp_path / "model.so")


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.so").write_bytes(b"not a library")
    with pytest.raises(InputError, match=r"model\.so: not a module"):
        Artefact.load(tmp_path / "model.so")
