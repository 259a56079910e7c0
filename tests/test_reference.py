from __future__ import annotations

import time
from pathlib import Path

import networks
import numpy as np
import pytest
from entries import image, whole

from planner.reference import VISITS, Reference


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("reference")
    entry = whole(networks.chain(), folder)
    return networks.saved(entry.model, folder, "exact"), image(entry)


@pytest.mark.parametrize("threads", [1, 2])
def test_single_runs_are_timed_with_any_number_of_threads(network: tuple[Path, np.ndarray], threads: int) -> None:
    with Reference(*network, threads) as reference:
        times = reference.latencies(5)
        assert times.shape == (5,)
        assert (times > 0).all()
        assert np.median(times) < 1e8
        process = reference._process
    assert (process is None) == (threads == 1)
    assert process is None or process.returncode == 0


def test_two_runtimes_with_threads_take_turns_in_few_rounds_with_a_rest(network: tuple[Path, np.ndarray]) -> None:
    with Reference(*network, 2) as reference:
        assert sum(reference.takes_part(index, 25) for index in range(25)) == VISITS
        assert reference.takes_part(0, 1)
        start = time.monotonic()
        reference.latencies(1)
        assert time.monotonic() - start >= 0.5
    with Reference(*network, 1) as reference:
        assert all(reference.takes_part(index, 25) for index in range(25))


def test_a_network_that_cannot_be_loaded_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"none")
    with pytest.raises(RuntimeError, match="onnxruntime ended with status 1"):
        Reference(tmp_path / "broken.onnx", np.zeros((1, 3, 10, 8), np.float32), 2)
