"""Labelled images of the size that the networks of ``networks.chain`` take, on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 10, 8)


def archive(folder: Path, shape: tuple[int, ...] = SHAPE, classes: int = networks.CLASSES, name: str = "data") -> Path:
    """Write random images and labels; every class has an image in every part."""
    rng = np.random.default_rng(3)
    arrays = {}
    for part, count in (("calibration", 24), ("validation", 30), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % classes
    path = folder / f"{name}.npz"
    np.savez(path, mean=np.full(shape[0], 0.5), std=np.full(shape[0], 0.25), **arrays)
    return path
