"""Offsets of tensors in one storage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import instances, optimum

from costmodels.arena import ALIGNMENT, Packing, Tensor, aligned, pack


@st.composite
def some_tensors(draw: st.DrawFn) -> list[Tensor]:
    """Draw tensors, some of which may take the place of one before."""
    tensors: list[Tensor] = []
    free: list[int] = []
    for index in range(draw(st.integers(0, 14))):
        over = draw(st.sampled_from(free)) if free and draw(st.booleans()) else None
        if over is None:
            born, size = draw(st.integers(0, 8)), draw(st.integers(0, 700))
        else:
            free.remove(over)
            born, size = tensors[over].last, tensors[over].bytes
        tensors.append(Tensor(bytes=size, born=born, last=born + draw(st.integers(0, 4)), within=over))
        if tensors[-1].last > born:
            free.append(index)
    return tensors


def overlapping(tensors: list[Tensor], packing: Packing) -> list[tuple[int, int]]:
    """List pairs of tensors that are needed at once and share bytes, though neither takes the other's place."""
    found = []
    for i, one in enumerate(tensors):
        for j, other in enumerate(tensors[:i]):
            apart = (
                packing.offsets[i] + aligned(one.bytes) <= packing.offsets[j]
                or packing.offsets[j] + aligned(other.bytes) <= packing.offsets[i]
            )
            taken = i == other.within or j == one.within
            if one.meets(other) and not apart and not (taken and packing.offsets[i] == packing.offsets[j]):
                found.append((i, j))
    return found


@given(some_tensors())
@settings(max_examples=150, deadline=None)
def test_no_two_tensors_that_are_needed_at_once_overlap(tensors: list[Tensor]) -> None:
    packing = pack(tensors)
    assert not overlapping(tensors, packing)
    assert all(offset % ALIGNMENT == 0 for offset in packing.offsets)
    ends = [offset + aligned(tensor.bytes) for offset, tensor in zip(packing.offsets, tensors, strict=True)]
    assert packing.bytes == max(ends, default=0)


@given(some_tensors())
@settings(max_examples=150, deadline=None)
def test_no_storage_is_smaller_than_the_live_set(tensors: list[Tensor]) -> None:
    packing = pack(tensors)
    taken = {tensor.within: tensor for tensor in tensors if tensor.within is not None}
    live = [
        sum(aligned(t.bytes) for i, t in enumerate(tensors) if t.born <= call <= t.last)
        - sum(aligned(t.bytes) for t in taken.values() if t.born == call)
        for call in range(20)
    ]
    assert packing.live_bytes == max(live)
    assert packing.bytes >= packing.live_bytes
    assert packing.optimal == (packing.bytes == packing.live_bytes)


@given(some_tensors(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_list_does_not_matter(tensors: list[Tensor], chance: random.Random) -> None:
    order = list(range(len(tensors)))
    chance.shuffle(order)
    place = {index: position for position, index in enumerate(order)}
    shuffled = [
        Tensor(
            bytes=tensors[i].bytes,
            born=tensors[i].born,
            last=tensors[i].last,
            within=None if tensors[i].within is None else place[tensors[i].within],
        )
        for i in order
    ]
    one, other = pack(tensors), pack(shuffled)
    assert (one.bytes, one.live_bytes) == (other.bytes, other.live_bytes)


def test_a_tensor_takes_the_place_of_one_that_dies_there() -> None:
    chain = [Tensor(bytes=640, born=0, last=1), *(Tensor(bytes=640, born=i, last=i + 1, within=i - 1) for i in (1, 2))]
    assert pack(chain) == Packing(offsets=(0, 0, 0), bytes=640, live_bytes=640)


def test_nothing_needs_no_storage() -> None:
    assert pack([]) == Packing(offsets=(), bytes=0, live_bytes=0)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([Tensor(bytes=1, born=0, last=1, within=5)], "within tensor 5"),
        ([Tensor(bytes=1, born=0, last=2), Tensor(bytes=1, born=1, last=2, within=0)], "needed last"),
        ([Tensor(bytes=1, born=0, last=1), Tensor(bytes=2, born=1, last=2, within=0)], "same size"),
        ([Tensor(bytes=1, born=0, last=1), *2 * [Tensor(bytes=1, born=1, last=2, within=0)]], "both lie within"),
    ],
)
def test_a_place_that_cannot_be_taken_is_refused(tensors: list[Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pack(tensors)


@pytest.mark.parametrize("figures", [{"bytes": -1, "born": 0, "last": 0}, {"bytes": 1, "born": 2, "last": 1}])
def test_odd_tensors_are_refused(figures: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Tensor(**figures)


def test_cp_sat_proves_most_random_packings_optimal_and_none_better_than_its_optimum() -> None:
    pytest.importorskip("ortools")
    rows = instances(60, seconds=5.0)
    assert all(row["live"] <= row["optimum"] <= row["bytes"] for row in rows)
    assert sum(row["bytes"] == row["optimum"] for row in rows) >= 57
    assert max(row["bytes"] / row["optimum"] for row in rows) < 1.05


def test_cp_sat_agrees_on_a_few_tensors() -> None:
    sizes_and_lives = [(2, 0, 1), (3, 0, 0), (3, 2, 2), (2, 1, 2), (1, 1, 1)]
    tensors = [Tensor(bytes=64 * size, born=born, last=last) for size, born, last in sizes_and_lives]
    assert optimum(tensors, 5.0) == pack(tensors).bytes
