"""ONNX Runtime's static int8 form of a network: quantise and dequantise pairs, weights per channel."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: NDArray) -> None:
        self._feeds = iter([{name: image[None]} for image in inputs])

    def get_next(self) -> dict[str, NDArray] | None:
        return next(self._feeds, None)


def weight_bits(mcpu: str) -> int:
    """Tell how many bits weights had better have on a processor, ``""`` being this one.

    Without a dot product of bytes the fast instruction is exact for weights of 7 bits, and ONNX Runtime's own
    saturates with 8; its manual recommends 7 there.
    """
    import tvm

    from planner.compiler import host_target
    from planner.schedules.int8.targets import Instruction, of_target

    target = host_target()
    target["mcpu"] = mcpu or target["mcpu"]
    exact = of_target(tvm.target.Target(target)).exact
    return 8 if exact in {Instruction.VPDPBUSD, Instruction.SDOT} else 7


def quantise(model: onnx.ModelProto, path: Path, inputs: NDArray, *, bits: int = 8) -> None:
    """Write the int8 form of a network, all settings but the weights' those of ONNX Runtime.

    Args:
        model: A folded network.
        path: Where the int8 form is written.
        inputs: ``(n, ...)``, what activations are calibrated with.
        bits: Bits of the weights, which have a scale a channel: 8 or 7.
    """
    logging.getLogger().setLevel(logging.ERROR)  # it recommends its own pre-processing; the network is folded already
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    reader = _Reader(model.graph.input[0].name, inputs)
    quantize_static(copy, str(path), reader, quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=bits == 7)
