"""Measure the shipped networks on all test images and record it in ``data/models/models.json``."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from planner.dataset import Dataset, Split, read


def main() -> None:
    """Describe every network that is there, and print how often each is right; of others the record stays."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=here / "full", help="folder with Fashion-MNIST")
    parser.add_argument("--sample", type=Path, default=here / "fashion_mnist.npz", help="the shipped sample")
    parser.add_argument("--models", type=Path, default=here / "models", help="folder with the shipped ONNX files")
    parser.add_argument("--large", type=Path, default=here / "large", help="folder with those that are not shipped")
    options = parser.parse_args()
    data, sample = read(options.data), read(options.sample)
    record = options.models / "models.json"
    described = json.loads(record.read_text()) if record.is_file() else {}
    for path in [*sorted(options.models.glob("*.onnx")), *sorted(options.large.glob("*.onnx"))]:
        described[path.stem] = describe(path, data, sample)
        print(path.stem, json.dumps(described[path.stem]))
    record.write_text(json.dumps(described, indent=2) + "\n")


def describe(path: Path, data: Dataset, sample: Dataset) -> dict[str, object]:
    """Return what is worth knowing about a network.

    Args:
        path: Its ONNX file.
        data: The whole data set.
        sample: The shipped sample of it.

    Returns:
        Hash, sizes, and top-1 in per cent on all test images and on each part of the sample.
    """
    model = onnx.load(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def top1(owner: Dataset, split: Split) -> float:
        images = owner.inputs(split)
        logits = np.concatenate([session.run(None, {"input": images[i : i + 1]})[0] for i in range(len(images))])
        return round(100 * float((logits.argmax(1) == split.labels).mean()), 2)

    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "opset": model.opset_import[0].version,
        # By how much images are scaled is no parameter.
        "parameters": sum(
            int(np.prod(tensor.dims)) for tensor in model.graph.initializer if not tensor.name.endswith("/scales")
        ),
        "test_images": len(data.test),
        "test_top1": top1(data, data.test),
        "sample_test_top1": top1(sample, sample.test),
        "validation_top1": top1(sample, sample.validation),
        "calibration_top1": top1(sample, sample.calibration),
    }


if __name__ == "__main__":
    main()
