"""What kernels read and write, and the arena that follows."""

from __future__ import annotations

import pytest

from costmodels.arena import Tensor
from costmodels.memory import Call, MemoryScript, Value


def script(**changes: object) -> MemoryScript:
    """A block whose input is added to what it computes: values 0 (given), 1, 2, 3 (the sum), 4 (the result)."""
    return MemoryScript(
        values=(
            Value(bytes=100, place="input"),
            *(Value(bytes=640, place="arena") for _ in range(3)),
            Value(bytes=40, place="output"),
        ),
        calls=(
            Call(kernel="stem", owner="stem", reads=(0,), writes=(1,)),
            Call(kernel="conv", owner="conv", reads=(1,), writes=(2,), **changes),
            Call(kernel="add", owner="sum", reads=(2, 1), writes=(3,), over=((3, 2), (3, 1))),
            Call(kernel="dense", owner="fc", reads=(3,), writes=(4,)),
        ),
    )


def test_what_is_written_over_needs_no_place_of_its_own() -> None:
    tensors, values, working = script().tensors()
    assert (values, working) == ((1, 2, 3), ())
    assert tensors[2] == Tensor(bytes=640, born=2, last=3, within=1)
    assert script().bytes == 100 + 2 * 640 + 40


def test_a_workspace_is_there_for_one_call() -> None:
    tensors, _, working = script(workspace_bytes=64).tensors()
    assert working == (1,)
    assert tensors[-1] == Tensor(bytes=64, born=1, last=1)
    assert script(workspace_bytes=64).pack().bytes == 2 * 640 + 64


def test_live_bytes_count_input_and_output_throughout() -> None:
    assert script().live_bytes() == [100 + 40 + part for part in (640, 1280, 1280, 640)]


@pytest.mark.parametrize("over", [((3, 0),), ((2, 1),)])
def test_only_what_lies_in_the_arena_and_dies_there_is_written_over(over: tuple[tuple[int, int], ...]) -> None:
    plain = script(over=over if over[0][0] == 2 else ())
    tensors, _, _ = plain.tensors()
    assert tensors[1].within is None


def test_a_place_is_taken_once() -> None:
    values = tuple(Value(bytes=64, place="arena") for _ in range(3))
    calls = (
        Call(kernel="a", owner="a", reads=(), writes=(0,)),
        Call(kernel="b", owner="b", reads=(0,), writes=(1, 2), over=((1, 0), (2, 0))),
    )
    tensors, _, _ = MemoryScript(values=values, calls=calls).tensors()
    assert [tensor.within for tensor in tensors] == [None, 0, None]


def test_a_call_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="call relu names value 3: expected one of 1"):
        MemoryScript(
            values=(Value(bytes=1, place="input"),), calls=(Call(kernel="relu", owner="r", reads=(3,), writes=()),)
        )
