from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.measuring.store import Sample, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.store"


def test_a_result_is_found_again_by_what_it_is_about_whatever_the_order(path: Path) -> None:
    logits = np.arange(6, dtype=np.float16).reshape(2, 3)
    with Store(path) as store:
        store.put("loss", {"layer": "a", "choice": "int8"}, {"loss_raw": 0.25}, {"logits": logits})
    with Store(path) as store:
        found = store.get("loss", {"choice": "int8", "layer": "a"})
        assert found is not None
        assert found.value == {"loss_raw": 0.25}
        assert found.arrays["logits"].dtype == np.float16
        np.testing.assert_array_equal(found.arrays["logits"], logits)
        assert store.get("loss", {"layer": "a"}) is None
        assert store.get("bytes", {"choice": "int8", "layer": "a"}) is None


def test_the_first_result_stays_and_is_handed_back(path: Path) -> None:
    with Store(path) as store:
        store.put("loss", {"layer": "a"}, 1, {"x": np.zeros(2)})
        kept = store.put("loss", {"layer": "a"}, 2, {"x": np.ones(2), "y": np.ones(2)})
        assert kept.value == 1
        assert {name: array.tolist() for name, array in kept.arrays.items()} == {"x": [0.0, 0.0]}


def test_no_sample_is_doubled_and_all_are_in_the_order_they_were_taken(path: Path) -> None:
    about = {"build": "exact"}
    with Store(path) as store:
        first = [Sample(round=n, nanoseconds=100.5 + n, control_ns=7.25) for n in (1, 0)]
        assert store.add_samples("network", about, first) == 2
        assert store.add_samples("network", about, first) == 0
        run = store.run
    with Store(path) as store:
        assert store.add_samples("network", about, [Sample(round=0, nanoseconds=9.0, mark="drifted")]) == 1
        found = store.samples("network", about)
        assert [(s.run, s.round, s.nanoseconds, s.mark) for s in found] == [
            (run, 0, 100.5, ""),
            (run, 1, 101.5, ""),
            (run + 1, 0, 9.0, "drifted"),
        ]
        assert found[0].control_ns == 7.25


def test_a_round_is_kept_whole_or_not_at_all(path: Path) -> None:
    with Store(path) as store:
        with pytest.raises(TypeError):
            store.add_rounds(
                [
                    ("network", {"build": "a"}, [Sample(round=0, nanoseconds=1.0)]),
                    ("network", {"build": object()}, [Sample(round=0, nanoseconds=1.0)]),
                ]
            )
        assert store.samples("network", {"build": "a"}) == ()
