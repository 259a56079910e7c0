"""Labelled images: what accuracy is measured on, and what approximations are calibrated with.

A data set has three parts, and the shipped networks were trained on none of them. ``calibration`` images feed
the factorisations and the refit, ``validation`` images give every choice its loss, and ``test`` images are
looked at only when a finished build is verified. Three forms are read: our own ``.npz``, a folder of
Fashion-MNIST or MNIST (IDX files), and a folder of CIFAR-10 in its Python or binary version. From the latter
two, calibration and validation are taken out of the training images by `held_out`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.dataset_files import Arrays, read_cifar10, read_idx, read_npz
from planner.errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "CALIBRATION_COUNT",
    "PARTS",
    "UNKNOWN",
    "VALIDATION_COUNT",
    "Dataset",
    "Split",
    "held_out",
    "read",
    "shipped",
]

PARTS = ("calibration", "validation", "test")
UNKNOWN = -1
"""The label of an image whose class is not known."""
CALIBRATION_COUNT = 512
VALIDATION_COUNT = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        images: uint8 in 0..255, or float32 that a network takes as it is; shape ``(n, C, H, W)``.
        labels: int64 class numbers from 0; shape ``(n,)``.  None where they are not known: then each is -1.

    >>> part = Split(images=np.zeros((2, 1, 28, 28), np.uint8), labels=np.array([3, 9]))
    >>> len(part), part.labels.dtype
    (2, dtype('int64'))
    """

    images: NDArray[np.uint8] | NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False, default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        """Check shapes, types and labels, and take read-only views of the arrays."""
        images = np.asarray(self.images)
        known = self.labels is not None
        labels = np.asarray(self.labels) if known else np.full(len(images), UNKNOWN, np.int64)
        if images.ndim != 4 or images.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
            raise InputError(
                f"images are {images.dtype} of shape {images.shape}; expected uint8 or float32 of shape (n, C, H, W)",
            )
        if 0 in images.shape:
            raise InputError(f"there are no images: their shape is {images.shape}")
        if images.dtype == np.float32 and not np.isfinite(images).all():
            raise InputError("images hold NaN or infinite values")
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels are {labels.dtype} of shape {labels.shape}; expected integers of shape (n,)")
        if len(labels) != len(images):
            raise InputError(f"{len(images)} images, but {len(labels)} labels")
        if known and labels.min() < 0:
            at = int(np.argmin(labels))
            raise InputError(f"label {at} is {labels[at]}; labels count from 0")
        for name, value in (("images", images), ("labels", labels.astype(np.int64))):
            view = value.view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    @property
    def labelled(self) -> bool:
        """Whether the classes of the images are known."""
        return bool(self.labels[0] != UNKNOWN)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images with labels in three parts, and how a network wants them scaled.

    Attributes:
        name: What the data are called.
        calibration: Images that approximations are fitted with.
        validation: Images that give choices their loss.
        test: Images that finished builds are verified with.
        mean: Mean of each channel of ``images / 255``; shape ``(C,)``.
        std: Standard deviation of the same; shape ``(C,)``.
        classes: Number of classes; every label is below it.
        source: Where the data were read from.
        digest: sha256 over every image, label and scale; the same data have the same digest, however they are
            stored.

    >>> part = Split(images=np.full((2, 1, 4, 4), 255, np.uint8), labels=np.array([0, 1]))
    >>> data = Dataset(name="white", calibration=part, validation=part, test=part, mean=(0.5,), std=(0.25,), classes=2)
    >>> float(data.inputs("test").max())
    2.0
    >>> print(data)
    white: 2 calibration, 2 validation, 2 test images of 1x4x4, 2 classes
    """

    name: str
    calibration: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    source: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Check that the parts agree, and take the digest."""
        shape, dtype = self.image_shape, self.calibration.images.dtype
        for part in PARTS:
            split = self.part(part)
            if split.images.shape[1:] != shape or split.images.dtype != dtype:
                raise InputError(
                    f"{self.where}: {part} images are {split.images.dtype} "
                    f"of shape {split.images.shape[1:]}, but calibration images {dtype} of shape {shape}",
                )
            _check_labels(self.where, part, split, self.classes)
        for name in ("mean", "std"):
            value = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, value)
            if len(value) != shape[0] or not np.isfinite(value).all():
                raise InputError(
                    f"{self.where}: {name} is {value}; expected one finite number for each of {shape[0]} channels",
                )
        if min(self.std) <= 0:
            raise InputError(f"{self.where}: std is {self.std}; expected numbers above zero")
        object.__setattr__(self, "digest", self._digest())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image: ``(C, H, W)``."""
        channels, height, width = self.calibration.images.shape[1:]
        return channels, height, width

    @property
    def labelled(self) -> bool:
        """Whether the classes of the validation images are known, by which losses are judged."""
        return self.validation.labelled

    @property
    def where(self) -> str:
        """What an error about these data names: the file where there is one, else the name."""
        return self.source or self.name

    def part(self, name: str) -> Split:
        """Return one part by its name.

        Args:
            name: One of ``calibration``, ``validation`` and ``test``.

        Returns:
            That part.

        Raises:
            InputError: There is no part of that name.
        """
        if name not in PARTS:
            raise InputError(f"{self.where}: there is no part {name!r}; there are {', '.join(PARTS)}")
        split: Split = getattr(self, name)
        return split

    def inputs(self, split: Split | str, *, first: int | None = None) -> NDArray[np.float32]:
        """Return images as the network takes them.

        Args:
            split: A part of the data, or its name.
            first: Only that many images, from the start; all of them where it is None.

        Returns:
            ``(image / 255 - mean) / std`` for uint8 images, and float32 images unchanged; shape ``(n, C, H,
            W)``.
        """
        part = self.part(split) if isinstance(split, str) else split
        images = part.images[:first]
        if images.dtype == np.float32:
            return np.array(images, dtype=np.float32)
        mean = np.asarray(self.mean, np.float32).reshape(1, -1, 1, 1)
        std = np.asarray(self.std, np.float32).reshape(1, -1, 1, 1)
        scaled: NDArray[np.float32] = (images.astype(np.float32) / np.float32(255) - mean) / std
        return scaled

    def check_against(self, *, input_shape: Sequence[int], classes: int, model: str) -> None:
        """Check that a network takes these images and knows these labels.

        Args:
            input_shape: Shape of the network's input, ``(1, C, H, W)``.
            classes: How many classes the network tells apart.
            model: The network's name, for the message.

        Raises:
            InputError: The shape of the images is another one, or a label is out of range.
        """
        wanted = tuple(input_shape)
        if wanted[1:] != self.image_shape:
            raise InputError(
                f"{self.where}: images have shape {self.image_shape} (channels, height, width), "
                f"but {model} takes {wanted[1:]}",
            )
        for part in PARTS:
            _check_labels(self.where, part, self.part(part), classes, model)

    def _digest(self) -> str:
        state = hashlib.sha256()
        for part in PARTS:
            split = self.part(part)
            for array in (split.images, split.labels):
                state.update(f"{part} {array.dtype.str} {array.shape} ".encode())
                state.update(np.ascontiguousarray(array).data)
        state.update(np.array([self.mean, self.std], "<f8").tobytes())
        return state.hexdigest()

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.part(part))} {part}" for part in PARTS)
        said = "" if self.labelled else ", without labels"
        return f"{self.name}: {counts} images of {'x'.join(map(str, self.image_shape))}, {self.classes} classes{said}"


def held_out(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose which training images are kept out of training, for calibration and for validation.

    The indices are ordered by a hash of their own (SplitMix64, Steele et al. 2014, figure 16), so that the
    choice depends on nothing but ``count``: no version of a random generator can change it.

    Args:
        count: How many training images there are.

    Returns:
        512 calibration indices and 1000 validation indices, each ascending, without a common one.

    Raises:
        InputError: There are too few images.

    >>> calibration, validation = held_out(60000)
    >>> len(calibration), len(validation), len(set(calibration) & set(validation))
    (512, 1000, 0)
    """
    needed = CALIBRATION_COUNT + VALIDATION_COUNT
    if count <= needed:
        raise InputError(f"{count} training images; more than {needed} are needed, as so many are held out")
    key = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    order = np.argsort(key ^ (key >> np.uint64(31)), kind="stable")
    return np.sort(order[:CALIBRATION_COUNT]), np.sort(order[CALIBRATION_COUNT:needed])


def read(path: str | os.PathLike[str]) -> Dataset:
    """Read labelled images from a file or a folder.

    Args:
        path: Our ``.npz``; or a folder that holds Fashion-MNIST's or MNIST's four IDX files, gzipped or not;
            or a folder that holds CIFAR-10, ``data_batch_1`` to ``5`` and ``test_batch``, in the Python or
            the binary version.

    Returns:
        The data in three parts. Where they come from IDX or CIFAR-10, calibration and validation are the
        training images that `held_out` names, and test is the whole test set.

    Raises:
        InputError: There is no such file, or it is none of these, or what it holds is damaged or does not
            agree.
    """
    where = Path(path)
    if not where.exists():
        raise InputError(f"{where}: there is no such file or folder")
    if where.is_file():
        arrays = read_npz(where)
        parts = arrays.parts
    else:
        arrays = _read_folder(where)
        images, labels = arrays.parts["train"]
        calibration, validation = held_out(len(images))
        parts = {
            "calibration": (images[calibration], labels[calibration] if labels is not None else None),
            "validation": (images[validation], labels[validation] if labels is not None else None),
            "test": arrays.parts["test"],
        }
    splits = {}
    for part in PARTS:
        try:
            splits[part] = Split(images=parts[part][0], labels=parts[part][1])  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"{where}: {part}: {error}") from error
    classes = arrays.classes
    if classes is None:
        classes = max(1, 1 + max(int(split.labels.max()) for split in splits.values()))
    return Dataset(
        name=arrays.name,
        calibration=splits["calibration"],
        validation=splits["validation"],
        test=splits["test"],
        mean=arrays.mean,
        std=arrays.std,
        classes=classes,
        source=str(where),
    )


def shipped(relative: str) -> Path:
    """Find a file that comes with blinkplan, in the checkout's ``data`` folder or among the installed files.

    Args:
        relative: Its path below ``data``, such as ``models/quick.onnx``.

    Returns:
        Where it is.

    Raises:
        InputError: Nothing of that name is shipped.
    """
    checkout = Path(__file__).resolve().parent.parent / "data" / relative
    if checkout.is_file():
        return checkout
    try:
        installed = importlib.metadata.files("blinkplan") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    tail = ("share", "blinkplan", *Path(relative).parts)
    ours = [file for file in installed if "blinkplan" in file.parts and "share" in file.parts]
    for file in ours:
        if file.parts[-len(tail) :] == tail:
            return Path(str(file.locate())).resolve()
    exist = sorted("/".join(file.parts[file.parts.index("blinkplan") + 1 :]) for file in ours)
    raise InputError(f"{relative}: not among the files that come with blinkplan ({', '.join(exist) or 'none found'})")


def _read_folder(where: Path) -> Arrays:
    for reader in (read_idx, read_cifar10):
        arrays = reader(where)
        if arrays is not None:
            return arrays
    raise InputError(
        f"{where}: neither the four IDX files of Fashion-MNIST (train-images-idx3-ubyte ...) "
        f"nor the batches of CIFAR-10 (data_batch_1 ... test_batch, with or without .bin) are in this folder",
    )


def _check_labels(where: str, part: str, split: Split, classes: int, model: str = "") -> None:
    largest = int(split.labels.max())
    if largest >= classes:
        at = int(np.argmax(split.labels))
        who = f"{model} tells {classes} classes apart" if model else f"there are {classes} classes"
        raise InputError(
            f"{where}: {part} label {at} is {largest}, but {who}: labels must be from 0 to {classes - 1}",
        )
