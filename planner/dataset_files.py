"""Reading labelled images from the forms they are stored in; what they mean is told in `planner.dataset`."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Arrays", "read_cifar10", "read_idx", "read_npz"]

_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IDX_FOLDERS = ("", "fashion-mnist", "raw", "FashionMNIST/raw", "MNIST/raw")
_CIFAR_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")
_CIFAR_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR_TEST = ("test_batch",)
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_PIXELS = 3 * 32 * 32
_IDX_CLASSES = 10
_NPZ_PARTS = ("calibration", "validation", "test")
_UNSIGNED_BYTES = 0x08
# What a pickled dictionary of numpy arrays is made of, and nothing else: reading data must not run code.
_ALLOWED_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """What a file or a folder holds, before it is checked and divided.

    Attributes:
        name: What the data are called.
        parts: Images ``(n, C, H, W)`` and labels ``(n,)`` of each part the files know; None for labels that are not
            known.
        mean: Mean of each channel of ``images / 255``.
        std: Standard deviation of the same.
        classes: Number of classes, where the files or their kind say so.

    >>> Arrays(name="empty", parts={}, mean=(0.0,), std=(1.0,)).classes is None
    True
    """

    name: str
    parts: Mapping[str, tuple[NDArray[Any], NDArray[Any] | None]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int | None = None


def read_npz(path: Path) -> Arrays:
    """Read our own archive.

    Args:
        path: A ``.npz`` with ``calibration_images``, ``calibration_labels``, the same for ``validation`` and
            ``test``, and for uint8 images ``mean`` and ``std`` for each channel; optionally ``name`` and
            ``classes``.  Without any labels, networks are judged by how far they are from the exact one.

    Returns:
        Its arrays.

    Raises:
        InputError: It is no such archive, it is damaged, or something is missing from it.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        single = isinstance(archive, np.ndarray)
        if not single:
            with archive:
                content: dict[str, NDArray[Any]] = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise InputError(f"{path}: not a readable .npz archive of plain arrays ({error})") from error
    if single:
        raise InputError(f"{path}: a single array; expected a .npz archive of named arrays")
    labelled = any(f"{part}_labels" in content for part in _NPZ_PARTS)
    needed = [f"{part}_{what}" for part in _NPZ_PARTS for what in ("images", "labels")[: 1 + labelled]]
    scaled = all(content[key].dtype == np.float32 for key in needed if key in content and key.endswith("images"))
    if not scaled:
        needed += ["mean", "std"]
    missing = [key for key in needed if key not in content]
    if missing:
        raise InputError(
            f"{path}: {', '.join(missing)} missing; the archive holds {', '.join(sorted(content)) or 'nothing'}"
        )
    if scaled and ("mean" in content or "std" in content):
        raise InputError(
            f"{path}: float32 images are taken as they are, but mean or std is given: store uint8 images "
            "or leave mean and std out"
        )
    images = content["calibration_images"]
    channels = images.shape[1] if images.ndim > 1 else 1
    return Arrays(
        name=str(content["name"]) if "name" in content else path.stem,
        parts={part: (content[f"{part}_images"], content.get(f"{part}_labels")) for part in _NPZ_PARTS},
        mean=(0.0,) * channels if scaled else _numbers(path, "mean", content["mean"]),
        std=(1.0,) * channels if scaled else _numbers(path, "std", content["std"]),
        classes=int(_numbers(path, "classes", content["classes"])[0]) if "classes" in content else None,
    )


def read_idx(folder: Path) -> Arrays | None:
    """Read Fashion-MNIST or MNIST from its four IDX files.

    Args:
        folder: The folder with the files, gzipped or not, or the folder above it as torchvision and ``make
            data`` leave it.

    Returns:
        Parts ``train`` and ``test``; None where the folder has no IDX file.

    Raises:
        InputError: One of the four is missing or damaged.
    """
    stems = [stem for pair in _IDX.values() for stem in pair]
    place = _find(folder, _IDX_FOLDERS, stems, ("", ".gz"))
    if place is None:
        return None
    parts = {}
    for part, (images, labels) in _IDX.items():
        pixels = _idx(_one_of(place, images, ("", ".gz")), dimensions=3)
        parts[part] = (pixels[:, None], _idx(_one_of(place, labels, ("", ".gz")), dimensions=1))
    mean, std = _scale(parts["train"][0])
    name = place.parent.name if place.name == "raw" else place.name
    return Arrays(name=name, parts=parts, mean=mean, std=std, classes=_IDX_CLASSES)


def read_cifar10(folder: Path) -> Arrays | None:
    """Read CIFAR-10 in its Python or its binary version.

    Args:
        folder: The folder with ``data_batch_1`` to ``5`` and ``test_batch`` (``.bin`` in the binary version),
            or the folder above it.

    Returns:
        Parts ``train`` and ``test``; None where the folder has no batch of CIFAR-10.

    Raises:
        InputError: A batch is missing or damaged.
    """
    place = _find(folder, _CIFAR_FOLDERS, [*_CIFAR_TRAIN, *_CIFAR_TEST], ("", ".bin"))
    if place is None:
        return None
    parts = {}
    for part, stems in (("train", _CIFAR_TRAIN), ("test", _CIFAR_TEST)):
        batches = [_cifar10_batch(_one_of(place, stem, ("", ".bin"))) for stem in stems]
        parts[part] = (np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches]))
    mean, std = _scale(parts["train"][0])
    return Arrays(name="cifar-10", parts=parts, mean=mean, std=std, classes=10)


def _numbers(path: Path, key: str, value: NDArray[Any]) -> tuple[float, ...]:
    if not np.issubdtype(value.dtype, np.number) or np.iscomplexobj(value) or value.ndim > 1 or value.size == 0:
        raise InputError(f"{path}: {key} is {value.dtype} of shape {value.shape}; expected numbers")
    return tuple(float(v) for v in np.atleast_1d(value))


def _scale(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel to four decimals, as is customary."""
    values = np.arange(256)
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        total = int(counts.sum())
        mean = int((counts * values).sum()) / total
        variance = int((counts * values**2).sum()) / total - mean**2
        means.append(round(mean / 255, 4))
        stds.append(round(variance**0.5 / 255, 4))
    return tuple(means), tuple(stds)


def _find(folder: Path, below: Iterable[str], stems: Iterable[str], endings: Iterable[str]) -> Path | None:
    wanted = [stem + ending for stem in stems for ending in endings]
    for place in (folder / name for name in below):
        if any((place / name).is_file() for name in wanted):
            return place
    return None


def _one_of(place: Path, stem: str, endings: Iterable[str]) -> Path:
    for ending in endings:
        if (place / (stem + ending)).is_file():
            return place / (stem + ending)
    exist = ", ".join(sorted(file.name for file in place.iterdir() if file.is_file())[:20])
    raise InputError(f"{place}: {stem} is missing; the folder holds {exist}")


def _idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTES, dimensions)):
        raise InputError(f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    size = int(np.prod([int(n) for n in shape], dtype=object))
    if len(content) - start != size:
        raise InputError(f"{path}: {len(content) - start} bytes of data; its header says {size}, shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _cifar10_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if path.suffix == ".bin":
        content = np.fromfile(path, np.uint8)
        if len(content) == 0 or len(content) % (1 + _CIFAR_PIXELS):
            raise InputError(
                f"{path}: {len(content)} bytes; expected a multiple of {1 + _CIFAR_PIXELS} (a label and an image)"
            )
        rows = content.reshape(-1, 1 + _CIFAR_PIXELS)
        return rows[:, 1:].reshape(-1, *_CIFAR_SHAPE), rows[:, 0].astype(np.int64)
    try:
        batch = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        data, labels = batch[b"data"], np.asarray(batch[b"labels"])
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
    ) as error:
        raise InputError(f"{path}: not a batch of CIFAR-10's Python version ({error})") from error
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _CIFAR_PIXELS:
        got = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"{path}: data is {got}; expected uint8 of shape (n, {_CIFAR_PIXELS})")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: labels are {labels.dtype}; expected integers")
    return data.reshape(-1, *_CIFAR_SHAPE), labels.astype(np.int64)


class _PlainUnpickler(pickle.Unpickler):
    """Unpickle arrays and plain containers only, so that opening a data set cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few names that arrays are made of.

        Args:
            module: The module a pickle asks for.
            name: The name in it.

        Returns:
            What stands under that name.

        Raises:
            pickle.UnpicklingError: It asks for anything else.
        """
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not needed for arrays")
        return super().find_class(module, name)
