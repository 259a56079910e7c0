"""Make ``data/fashion_mnist.npz``, the labelled sample that comes with blinkplan: ``python data/sample.py``.

It holds the 512 calibration and 1000 validation images that `planner.dataset.held_out` keeps out of training,
with their indices among the training images, and the first 2000 of the 10,000 test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from planner.dataset import held_out, read
from planner.dataset_files import read_idx

TEST_COUNT = 2000


def main() -> None:
    """Write the sample, and say what it holds."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=here / "full", help="folder with Fashion-MNIST")
    parser.add_argument("-o", "--out", type=Path, default=here / "fashion_mnist.npz", help="file to write")
    options = parser.parse_args()
    arrays = read_idx(options.data)
    if arrays is None:
        parser.error(f"{options.data} holds no IDX files; `make data` fetches them")
    images, labels = arrays.parts["train"]
    calibration, validation = held_out(len(images))
    np.savez_compressed(
        options.out,
        name=np.array("fashion-mnist"),
        classes=np.array(10),
        mean=np.array(arrays.mean),
        std=np.array(arrays.std),
        calibration_images=images[calibration],
        calibration_labels=labels[calibration],
        calibration_index=calibration.astype(np.int32),
        validation_images=images[validation],
        validation_labels=labels[validation],
        validation_index=validation.astype(np.int32),
        test_images=arrays.parts["test"][0][:TEST_COUNT],
        test_labels=arrays.parts["test"][1][:TEST_COUNT],
    )
    sample = read(options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes; {sample}; digest {sample.digest}")


if __name__ == "__main__":
    main()
