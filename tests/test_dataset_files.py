"""Labelled images in others' forms: divided by index, or refused with the reason."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from planner.dataset import CALIBRATION_COUNT, VALIDATION_COUNT, held_out, read
from planner.errors import InputError

COUNT = CALIBRATION_COUNT + VALIDATION_COUNT + 8


def write_idx(path: Path, values: np.ndarray, *, zipped: bool) -> None:
    content = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 1))
    else:
        path.write_bytes(content)


def idx_folder(folder: Path, *, zipped: bool = False, count: int = COUNT) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(2)
    content = {
        "train-images-idx3-ubyte": random.integers(0, 256, (count, 4, 4), dtype=np.uint8),
        "train-labels-idx1-ubyte": random.integers(0, 10, count, dtype=np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (7, 4, 4), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": random.integers(0, 10, 7, dtype=np.uint8),
    }
    for name, values in content.items():
        write_idx(folder / name, values, zipped=zipped)
    return content


def cifar_folder(folder: Path, *, binary: bool) -> tuple[np.ndarray, np.ndarray]:
    """Write batches of random images; return the training images and labels in the order of the batches."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    all_images, all_labels = [], []
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        images = random.integers(0, 256, (310, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, 310)
        if binary:
            rows = np.concatenate([labels[:, None].astype(np.uint8), images], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            # The published files were pickled by Python 2, whose str are bytes now.
            content = {b"data": images, b"labels": [int(v) for v in labels], b"batch_label": b"a batch"}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        if name != "test_batch":
            all_images.append(images.reshape(-1, 3, 32, 32))
            all_labels.append(labels)
    return np.concatenate(all_images), np.concatenate(all_labels)


# IDX files


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "FashionMNIST/raw"])
def test_divides_idx_files_by_index(tmp_path: Path, below: str, *, zipped: bool) -> None:
    content = idx_folder(tmp_path / "idx" / below, zipped=zipped)
    data = read(tmp_path / "idx")
    calibration, validation = held_out(COUNT)
    images, labels = content["train-images-idx3-ubyte"][:, None], content["train-labels-idx1-ubyte"]
    assert np.array_equal(data.calibration.images, images[calibration])
    assert np.array_equal(data.validation.images, images[validation])
    assert np.array_equal(data.validation.labels, labels[validation])
    assert np.array_equal(data.test.images[:, 0], content["t10k-images-idx3-ubyte"])
    assert data.classes == 10


def test_takes_mean_and_deviation_from_the_training_images(tmp_path: Path) -> None:
    content = idx_folder(tmp_path)
    data = read(tmp_path)
    images = content["train-images-idx3-ubyte"] / 255
    assert data.mean == (round(float(images.mean()), 4),)
    assert data.std == (round(float(images.std()), 4),)


def test_says_which_idx_file_is_missing(tmp_path: Path) -> None:
    idx_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte is missing; the folder holds t10k-images"):
        read(tmp_path)


def test_a_truncated_idx_file_is_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="train-images-idx3-ubyte: 24310 bytes of data; its header says 24320"):
        read(tmp_path)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
        read(tmp_path)


def test_a_file_of_another_kind_under_an_idx_name_is_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"something else")
    with pytest.raises(InputError, match="train-labels-idx1-ubyte: not an IDX file"):
        read(tmp_path)


def test_too_small_a_training_set_is_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path, count=1512)
    with pytest.raises(InputError, match="so many are held out"):
        read(tmp_path)


# CIFAR-10


@pytest.mark.parametrize(
    ("below", "binary"), [("", False), ("cifar-10-batches-py", False), ("cifar-10-batches-bin", True)]
)
def test_reads_cifar10_in_both_versions(tmp_path: Path, below: str, *, binary: bool) -> None:
    images, labels = cifar_folder(tmp_path / "user" / below, binary=binary)
    data = read(tmp_path / "user")
    calibration, validation = held_out(1550)
    assert np.array_equal(data.calibration.images, images[calibration])
    assert np.array_equal(data.validation.labels, labels[validation])
    assert (data.name, data.image_shape, data.classes, len(data.test)) == ("cifar-10", (3, 32, 32), 10, 310)
    np.testing.assert_allclose(data.mean, (images / 255).mean(axis=(0, 2, 3)), atol=5.1e-5)
    np.testing.assert_allclose(data.std, (images / 255).std(axis=(0, 2, 3)), atol=5.1e-5)


def test_both_versions_of_cifar10_are_the_same_data(tmp_path: Path) -> None:
    cifar_folder(tmp_path / "py", binary=False)
    cifar_folder(tmp_path / "bin", binary=True)
    assert read(tmp_path / "py").digest == read(tmp_path / "bin").digest


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "touched",)

    cifar_folder(tmp_path / "py", binary=False)
    (tmp_path / "py" / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": [1]}))
    with pytest.raises(InputError, match=r"data_batch_3: not a batch .*which is not needed for arrays"):
        read(tmp_path / "py")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1, 2]), "data_batch_2: not a batch"),
        (pickle.dumps({b"labels": [1]}), "data_batch_2: not a batch"),
        (pickle.dumps({b"data": [1, 2], b"labels": [1]}), "data_batch_2: data is list"),
        (
            pickle.dumps({b"data": np.zeros((1, 5), np.uint8), b"labels": [1]}),
            r"data is uint8 of shape \(1, 5\)",
        ),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["a"]}),
            "data_batch_2: labels are",
        ),
        (b"no pickle", "data_batch_2: not a batch"),
        (b"", "data_batch_2: not a batch"),
    ],
)
def test_says_what_is_wrong_with_a_batch(tmp_path: Path, content: bytes, message: str) -> None:
    cifar_folder(tmp_path / "py", binary=False)
    (tmp_path / "py" / "data_batch_2").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "py")


def test_a_truncated_binary_batch_is_refused(tmp_path: Path) -> None:
    cifar_folder(tmp_path / "bin", binary=True)
    path = tmp_path / "bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"test_batch\.bin: 952629 bytes; expected a multiple of 3073"):
        read(tmp_path / "bin")


def test_says_which_batch_is_missing(tmp_path: Path) -> None:
    cifar_folder(tmp_path / "bin", binary=True)
    (tmp_path / "bin" / "data_batch_4.bin").unlink()
    with pytest.raises(InputError, match="data_batch_4 is missing"):
        read(tmp_path / "bin")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither the four IDX files .* nor the batches of CIFAR-10"):
        read(tmp_path)
