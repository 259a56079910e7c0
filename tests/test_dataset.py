"""Labelled images in our own archive: read back as they were, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.dataset import (
    PARTS,
    Dataset,
    Split,
    held_out,
    read,
    shipped,
)
from planner.errors import InputError

SAMPLE = Path(__file__).parent.parent / "data" / "fashion_mnist.npz"


def arrays(dtype: type = np.uint8, **changes: object) -> dict[str, object]:
    """Return what a sound archive holds, with changes; a change to None leaves the key out."""
    random = np.random.default_rng(1)
    content: dict[str, object] = {"mean": np.array([0.3]), "std": np.array([0.4])}
    for part in PARTS:
        content[f"{part}_images"] = random.integers(0, 256, (4, 1, 6, 5)).astype(dtype)
        content[f"{part}_labels"] = np.array([0, 1, 2, 1])
    content |= changes
    return {key: value for key, value in content.items() if value is not None}


def archive(folder: Path, **changes: object) -> Path:
    path = folder / "some.npz"
    np.savez(path, **arrays(**changes))  # type: ignore[arg-type]
    return path


# What comes with blinkplan


def test_the_shipped_sample_has_the_promised_parts_and_is_small() -> None:
    data = read(SAMPLE)
    assert [len(data.part(part)) for part in PARTS] == [512, 1000, 2000]
    assert (data.image_shape, data.classes, data.mean, data.std) == ((1, 28, 28), 10, (0.286,), (0.353,))
    assert SAMPLE.stat().st_size <= 3_000_000


def test_the_shipped_sample_records_the_images_that_training_leaves_out() -> None:
    with np.load(SAMPLE) as content:
        calibration, validation = held_out(60000)
        assert np.array_equal(content["calibration_index"], calibration)
        assert np.array_equal(content["validation_index"], validation)


def test_every_class_is_in_every_part_of_the_shipped_sample() -> None:
    data = read(SAMPLE)
    for part in PARTS:
        counts = np.bincount(data.part(part).labels, minlength=10)
        assert counts.min() > len(data.part(part)) / 15


def test_finds_shipped_files_in_the_checkout() -> None:
    assert shipped("fashion_mnist.npz") == SAMPLE


def test_a_file_that_is_not_shipped_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"models/none\.onnx"):
        shipped("models/none.onnx")


# Which images are held out


def test_held_out_images_never_change() -> None:
    calibration, validation = held_out(60000)
    assert calibration[:4].tolist() == [254, 366, 410, 503]
    assert validation[:4].tolist() == [33, 53, 94, 203]


@pytest.mark.parametrize("count", [1513, 2000, 60000])
def test_held_out_images_are_distinct_and_exist(count: int) -> None:
    both = np.concatenate(held_out(count))
    assert len(set(both.tolist())) == 1512
    assert both.min() >= 0
    assert both.max() < count


def test_too_few_training_images_are_refused() -> None:
    with pytest.raises(InputError, match="1512 training images; more than 1512"):
        held_out(1512)


# Our archive


def test_reads_an_archive_back_as_it_was_written(tmp_path: Path) -> None:
    content = arrays()
    data = read(archive(tmp_path))
    assert data.name == "some"
    assert data.classes == 3
    for part in PARTS:
        assert np.array_equal(data.part(part).images, content[f"{part}_images"])
        assert np.array_equal(data.part(part).labels, content[f"{part}_labels"])
        assert data.part(part).labels.dtype == np.int64


def test_inputs_are_scaled_by_mean_and_deviation(tmp_path: Path) -> None:
    data = read(archive(tmp_path))
    inputs = data.inputs("test")
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, (data.test.images / 255 - 0.3) / 0.4, rtol=1e-5, atol=1e-6)
    assert np.array_equal(data.inputs(data.test, first=2), inputs[:2])


def test_float_images_go_to_the_network_as_they_are(tmp_path: Path) -> None:
    data = read(archive(tmp_path, dtype=np.float32, mean=None, std=None))
    assert np.array_equal(data.inputs("calibration"), data.calibration.images)


def test_float_images_with_a_mean_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float32 images are taken as they are"):
        read(archive(tmp_path, dtype=np.float32))


def test_the_digest_depends_on_content_and_not_on_the_file(tmp_path: Path) -> None:
    first = read(archive(tmp_path))
    np.savez_compressed(tmp_path / "again.npz", **arrays())  # type: ignore[arg-type]
    assert read(tmp_path / "again.npz").digest == first.digest
    labels = np.array([0, 1, 2, 2])
    assert read(archive(tmp_path, validation_labels=labels)).digest != first.digest
    assert read(archive(tmp_path, mean=np.array([0.31]))).digest != first.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_labels": None}, "validation_labels missing; the archive holds calibration_images"),
        ({"mean": None}, "mean missing"),
        ({"test_labels": np.array([0, 1, 2])}, "test: 4 images, but 3 labels"),
        ({"test_labels": np.array([0, -1, 2, 1])}, "test: label 1 is -1"),
        ({"test_labels": np.array([0.0, 1.0, 2.0, 1.0])}, r"test: labels are float64"),
        ({"classes": np.array(2)}, "calibration label 2 is 2, but there are 2 classes"),
        ({"calibration_images": np.zeros((4, 6, 5), np.uint8)}, r"images are uint8 of shape \(4, 6, 5\)"),
        ({"calibration_images": np.zeros((4, 1, 6, 5), np.int32)}, "images are int32"),
        (
            {"validation_images": np.zeros((4, 1, 6, 6), np.uint8)},
            r"validation images are uint8 of shape \(1, 6, 6\)",
        ),
        ({"std": np.array([0.0])}, "expected numbers above zero"),
        ({"mean": np.array([np.nan])}, "mean is .*expected one finite number"),
        ({"mean": np.array([0.1, 0.2, 0.3])}, "expected one finite number for each of 1 channels"),
        ({"mean": np.array(["much"])}, "mean is <U4"),
        (
            {"test_images": np.zeros((0, 1, 6, 5), np.uint8), "test_labels": np.zeros(0, int)},
            "there are no images",
        ),
    ],
)
def test_names_the_file_and_what_is_wrong_with_it(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = archive(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_infinite_float_images_are_refused(tmp_path: Path) -> None:
    images = np.full((4, 1, 6, 5), np.inf, np.float32)
    with pytest.raises(InputError, match="test: images hold NaN or infinite"):
        read(archive(tmp_path, dtype=np.float32, mean=None, std=None, test_images=images))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    path.write_text("not an archive")
    with pytest.raises(InputError, match=r"text\.npz: not a readable"):
        read(path)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"some\.npz: not a readable"):
        read(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, **arrays())  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    content[300:330] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.npz"):
        read(path)


def test_an_archive_of_pickles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"some\.npz: not a readable"):
        read(archive(tmp_path, test_labels=np.array([0, 1, {}, 2], object)))


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"expected a \.npz archive"):
        read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npz: there is no such file"):
        read(tmp_path / "none.npz")


# Whether a network fits


def test_a_network_for_other_images_is_refused(tmp_path: Path) -> None:
    data = read(archive(tmp_path))
    with pytest.raises(InputError, match=r"some\.npz: images have shape \(1, 6, 5\).*but net takes \(3, 6, 5\)"):
        data.check_against(input_shape=(1, 3, 6, 5), classes=3, model="net")


def test_a_label_that_a_network_does_not_know_is_refused(tmp_path: Path) -> None:
    data = read(archive(tmp_path))
    with pytest.raises(InputError, match="calibration label 2 is 2, but net tells 2 classes apart"):
        data.check_against(input_shape=(1, 1, 6, 5), classes=2, model="net")


def test_a_network_with_more_classes_is_accepted(tmp_path: Path) -> None:
    data = read(archive(tmp_path))
    data.check_against(input_shape=(1, 1, 6, 5), classes=1000, model="net")


def test_an_unknown_part_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no part 'train'; there are calibration, validation, test"):
        read(archive(tmp_path)).inputs("train")


def test_images_cannot_be_changed(tmp_path: Path) -> None:
    data = read(archive(tmp_path))
    with pytest.raises(ValueError, match="read-only"):
        data.test.images[0] = 0


def test_making_a_split_leaves_the_callers_array_writable() -> None:
    images = np.zeros((1, 1, 2, 2), np.uint8)
    part = Split(images=images, labels=np.array([0]))
    images[0] = 7
    assert part.images.max() == 7
    data = Dataset(name="d", calibration=part, validation=part, test=part, mean=(0.0,), std=(1.0,), classes=1)
    assert str(data) == "d: 1 calibration, 1 validation, 1 test images of 1x2x2, 1 classes"
