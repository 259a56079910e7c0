from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from planner.errors import InputError
from planner.measuring.processes import Process
from planner.measuring.records import digest, packed, unpacked
from planner.measuring.store import Sample, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.store"


def run_python(source: str, *arguments: object, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **more)


# Results and samples


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
        assert store.abouts("loss") == [{"layer": "a", "choice": "int8"}]


def test_the_first_result_stays_and_is_handed_back(path: Path) -> None:
    with Store(path) as store:
        store.put("loss", {"layer": "a"}, 1, {"x": np.zeros(2)})
        kept = store.put("loss", {"layer": "a"}, 2, {"x": np.ones(2), "y": np.ones(2)})
        assert kept.value == 1
        assert {name: array.tolist() for name, array in kept.arrays.items()} == {"x": [0.0, 0.0]}


KINDS = st.one_of(arrays.floating_dtypes(sizes=(16, 32, 64)), arrays.integer_dtypes(), arrays.boolean_dtypes())


@given(arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, min_side=0)))
def test_an_array_comes_back_as_it_was_bit_by_bit(array: np.ndarray) -> None:
    again = unpacked(*packed(array))
    assert again.shape == array.shape
    assert again.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(again, array)
    assert not again.flags.writeable


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_a_key_does_not_depend_on_order_or_on_having_been_written_as_json(about: dict[str, object]) -> None:
    assert digest(dict(reversed(about.items()))) == digest(about) == digest(json.loads(json.dumps(about)))
    assert digest({**about, "more": 1}) != digest({**about, "more": 2})


def test_what_is_not_finite_or_no_number_is_not_kept(path: Path) -> None:
    with Store(path) as store:
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.put("loss", {"layer": "a"}, float("nan"))
        with pytest.raises(InputError, match="array of object cannot be stored"):
            store.put("loss", {"layer": "a"}, 1, {"x": np.array([None])})
        assert store.get("loss", {"layer": "a"}) is None
    for bad in ({"nanoseconds": float("nan")}, {"nanoseconds": -1.0}, {"round": -1}, {"control_ns": float("inf")}):
        with pytest.raises(InputError, match="expected finite times and a round"):
            replace(Sample(round=0, nanoseconds=1.0), **bad)


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
        assert store.add_samples("network", about, found) == 0


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.floats(0, 1e12)), max_size=12)


@settings(max_examples=40)
@given(ROWS, st.integers(0, 12))
def test_putting_a_part_again_neither_loses_nor_doubles_nor_changes_samples(rows: list, again: int) -> None:
    with Store(None) as store:
        for name, number, ns in rows + rows[:again]:
            store.add_samples("t", {"name": name}, [Sample(round=number, nanoseconds=ns)])
        expected: dict[tuple[str, int], float] = {}
        for name, number, ns in rows:
            expected.setdefault((name, number), ns)
        found = {(n, s.round): s.nanoseconds for n in "abc" for s in store.samples("t", {"name": n})}
        assert found == expected


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


def test_threads_may_share_a_store(path: Path) -> None:
    def work(number: int) -> None:
        for at in range(10):
            store.add_samples("t", {"n": at}, [Sample(round=number, nanoseconds=1.0)])
            store.put("r", {"n": at}, number)

    with Store(path) as store:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.counts() == ({"r": 10}, {"t": 40})
        store.check()


# Runs


def test_a_run_says_what_was_measured_and_what_was_reused_and_why_something_was_repeated(path: Path) -> None:
    with Store(path) as store, store.running({"device": "tvm"}):
        store.put("loss", {"layer": "a"}, 1)
        store.add_samples("network", {"b": 1}, [Sample(round=0, nanoseconds=1.0), Sample(round=1, nanoseconds=1.0)])
    with Store(path) as store, store.running({"device": "tvm"}):
        assert store.get("loss", {"layer": "a"}) is not None
        assert store.get("loss", {"layer": "a"}) is not None
        store.put("loss", {"layer": "b"}, 1)
        store.samples("network", {"b": 1})
        store.add_samples("network", {"b": 1}, [Sample(round=2, nanoseconds=1.0)])
        for _ in range(2):
            store.note("retried", "quick: timing", "control drifted")
        assert store.summary() == {
            "measured": {"loss": 1, "network": 1},
            "reused": {"loss": 1, "network": 2},
            "retried": [{"what": "quick: timing", "reason": "control drifted", "times": 2}],
        }


def test_a_run_ends_as_its_block_did_and_a_store_without_one_begins_its_own(path: Path) -> None:
    with Store(path) as store:
        store.put("loss", {}, 1)
    with Store(path) as store, pytest.raises(KeyError), store.running({"device": "tvm"}):
        raise KeyError
    with Store(path) as store, store.running({"device": "tvm"}):
        assert [run["status"] for run in store.runs()] == ["finished", "failed", "running"]
    with Store(path) as store:
        runs = store.runs()
        assert [run["status"] for run in runs] == ["finished", "failed", "finished"]
        assert runs[1]["device"] == "tvm"
        assert runs[1]["host"] == Process.here().host
        assert runs[1]["ended"] >= runs[1]["started"]


HOLD = """
import sys
from planner.measuring.store import Store
store = Store(sys.argv[1])
store.begin({"device": "held"})
assert store.claim("loss", {"layer": "a"})
print("claimed", flush=True)
sys.stdin.readline()
if sys.argv[2] == "put":
    store.put("loss", {"layer": "a"}, "theirs")
store.close()
"""


def test_a_claim_holds_as_long_as_its_process_lives_and_ends_with_a_kill(path: Path) -> None:
    with Store(path) as store, run_python(HOLD, path, "keep") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        assert not store.claim("loss", {"layer": "a"})
        assert store.claim("loss", {"layer": "b"})
        assert [run["status"] for run in store.runs()] == ["running", "running"]
        other.kill()
        other.wait()
        assert store.claim("loss", {"layer": "a"})
        statuses = {run.get("device", "ours"): run["status"] for run in store.runs()}
        assert statuses == {"held": "killed", "ours": "running"}


@pytest.mark.parametrize(("ending", "given"), [("put", ["b"]), ("keep", ["b", "a"])])
def test_what_another_run_measures_is_waited_for_and_taken_over_only_if_it_does_not_come(
    path: Path, ending: str, given: list[str]
) -> None:
    with Store(path) as store, run_python(HOLD, path, ending) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "claimed\n"
        found = []
        for key in store.share("loss", {name: {"layer": name} for name in "ab"}):
            found.append(key)
            store.put("loss", {"layer": key}, "ours")
            if key == "b":
                other.stdin.write("\n")
                other.stdin.flush()
        assert found == given
        kept = store.get("loss", {"layer": "a"})
        assert kept is not None
        assert kept.value == ("theirs" if ending == "put" else "ours")


WRITE = """
import sys
from planner.measuring.store import Sample, Store
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store(path) as store, store.running({"name": name}):
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        store.put("loss", {"n": number}, name)
        store.add_rounds([("t", {"b": b}, [Sample(round=number, nanoseconds=1.0)]) for b in range(3)])
"""


def test_two_processes_write_side_by_side_and_nothing_is_lost_or_doubled(path: Path) -> None:
    count = 40
    with run_python(WRITE, path, "x", count) as one, run_python(WRITE, path, "y", count) as two:
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.wait(60) for process in (one, two)] == [0, 0]
    with Store(path, create=False) as store:
        store.check()
        assert store.counts() == ({"loss": count}, {"t": 2 * 3 * count})
        assert [run["status"] for run in store.runs()] == ["finished", "finished"]
        for build in range(3):
            found = [(sample.run, sample.round) for sample in store.samples("t", {"b": build})]
            assert sorted(found) == [(run, number) for run in (1, 2) for number in range(count)]


def test_a_process_killed_while_it_writes_leaves_whole_rounds_and_nothing_else(path: Path) -> None:
    with run_python(WRITE, path, "x", 100000) as writer:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        with Store(path) as store:
            while len(store.samples("t", {"b": 0})) < 20:
                pass
            writer.kill()
            writer.wait()
            seen = store.samples("t", {"b": 0})
    with Store(path, create=False) as store:
        store.check()
        rounds = [[sample.round for sample in store.samples("t", {"b": build})] for build in range(3)]
        assert rounds[0] == rounds[1] == rounds[2] == list(range(len(rounds[0])))
        assert store.samples("t", {"b": 0}) == seen
        assert [run["status"] for run in store.runs()] == ["killed"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
