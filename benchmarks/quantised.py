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


def quantise(model: onnx.ModelProto, path: Path, inputs: NDArray) -> None:
    """Write the int8 form of a network, all settings but per-channel weights those of ONNX Runtime.

    Args:
        model: A folded network.
        path: Where the int8 form is written.
        inputs: ``(n, ...)``, what activations are calibrated with.
    """
    logging.getLogger().setLevel(logging.ERROR)  # it recommends its own pre-processing; the network is folded already
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    reader = _Reader(model.graph.input[0].name, inputs)
    quantize_static(copy, str(path), reader, quant_format=QuantFormat.QDQ, per_channel=True)
