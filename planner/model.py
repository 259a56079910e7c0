"""A network together with the labelled images that its accuracy is judged on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from planner import dataset as datasets
from planner import graph as graphs
from planner.dataset import Dataset
from planner.errors import InputError
from planner.graph import LayerGraph

__all__ = ["Model", "load"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A network and its data.

    Attributes:
        graph: The network's layers.
        dataset: Calibration, validation and test images; None where only structure and time matter.

    Examples:
        >>> from planner.dataset import shipped
        >>> load(shipped("models/quick.onnx")).name
        'quick'
    """

    graph: LayerGraph
    dataset: Dataset | None = field(default=None)

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.graph.name

    def __str__(self) -> str:
        """Write the layers as a table."""
        return str(self.graph)

    def data(self) -> Dataset:
        """Give the data.

        Raises:
            InputError: The network was loaded without.
        """
        if self.dataset is None:
            raise InputError(
                f"model {self.name!r} was loaded without data; expected load(path, data=...) with labelled images"
            )
        return self.dataset


def load(
    path: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | Dataset | None = None,
    name: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Model:
    """Read a network and the data that it is judged on.

    Args:
        path: An ONNX classifier.
        data: Labelled images: an ``.npz`` or a folder as :func:`planner.dataset.read` takes them, or what that gave.
        name: Name of the model; the file's name without its suffix if None.
        input_shape: ``(1, C, H, W)``, needed where the file leaves a size other than the batch open.

    Returns:
        The model.

    Raises:
        InputError: Something is wrong with either file, or the images do not fit the network.
    """
    graph = graphs.read(path, name=name, input_shape=input_shape)
    found = data if isinstance(data, Dataset) or data is None else datasets.read(data)
    if found is not None:
        found.check_against(input_shape=graph.input_shape, classes=graph.classes, model=graph.name)
    return Model(graph=graph, dataset=found)
