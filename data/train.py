"""Train the shipped networks on Fashion-MNIST and write them as ONNX, as ``make models`` does.

Everything that decides the result is fixed: the seed, the number of steps, the learning rate as a function of
the step, one thread. Calibration and validation images, held out by `planner.dataset.held_out`, are never
trained on, and the test images are looked at once, after the last step. Needs the ``train`` extra.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from networks import NETWORKS
from torch import nn

from planner.dataset import held_out
from planner.dataset_files import read_idx

SEED = 0
BATCH = 64
OPSET = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one network is trained.

    Attributes:
        steps: How many batches of 64 images.
        peak: The highest learning rate, reached after 15 % of the steps; from there it falls linearly to
            nothing.
        decay: Weight decay of AdamW.
        shipped: Whether the network comes with blinkplan; one that does not goes into a folder beside.

    >>> Recipe(steps=100, peak=1.0, decay=0.0).rate(15)
    1.0
    """

    steps: int
    peak: float
    decay: float
    shipped: bool = True

    def rate(self, step: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: Its number, from 0.

        Returns:
            The rate.
        """
        done = step / self.steps
        return self.peak * min(done / 0.15, (1 - done) / 0.85) + 1e-6


RECIPES = {
    "quick": Recipe(steps=16000, peak=1.5e-3, decay=5e-4),
    "resnet8": Recipe(steps=12000, peak=4e-3, decay=1e-2),
    "vggs": Recipe(steps=14000, peak=4e-3, decay=1e-2),
    "vgg16q": Recipe(steps=12000, peak=3e-3, decay=1e-2),
    "vgg16": Recipe(steps=4500, peak=1.5e-3, decay=1e-2, shipped=False),
}


def train(network: nn.Module, recipe: Recipe, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Train a network in place, on mirrored and unmirrored images alike.

    Args:
        network: The untrained network.
        recipe: How to train it.
        images: Float32 inputs, shape ``(n, 1, 28, 28)``.
        labels: Class numbers, shape ``(n,)``.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.peak, weight_decay=recipe.decay)
    network.train()
    order, start, total = torch.empty(0, dtype=torch.long), time.monotonic(), 0.0
    per_epoch = len(images) // BATCH
    for step in range(recipe.steps):
        at = step % per_epoch * BATCH
        if at == 0:
            order = torch.randperm(len(images))
        chosen = order[at : at + BATCH]
        batch = images[chosen]
        mirrored = torch.rand(len(chosen)) < 0.5
        batch[mirrored] = batch[mirrored].flip(3)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        loss = nn.functional.cross_entropy(
            network(batch.contiguous(memory_format=torch.channels_last)),
            labels[chosen],
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
        if (step + 1) % 500 == 0:
            print(
                f"step {step + 1}/{recipe.steps}  loss {total / 500:.4f}  {time.monotonic() - start:.0f} s",
                flush=True,
            )
            total = 0.0


def export(network: nn.Module, path: Path) -> None:
    """Write a network as ONNX at batch 1, its nodes named after its modules, batch normalisation unfolded.

    Args:
        network: The trained network.
        path: The file to write.
    """
    network.eval().to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 28, 28),),
        str(path),
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    model = onnx.load(str(path))
    settle(model)
    tidy(model)
    model.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def settle(model: onnx.ModelProto) -> None:
    """Write by how much a ``Resize`` scales, where the exporter leaves it to be computed from the shape it reads.

    Args:
        model: The exported network at batch 1, changed in place. Nodes that nothing reads any more go.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [length.dim_value for length in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) > 3:
            scales = np.divide(shapes[node.output[0]], shapes[node.input[0]]).astype(np.float32)
            name = "/".join([*node.name.strip("/").split("/")[:-1], "scales"])
            model.graph.initializer.append(onnx.numpy_helper.from_array(scales, name))
            node.input[:] = [node.input[0], "", name]
    nodes, read = list(model.graph.node), {value.name for value in model.graph.output}
    kept = []
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def tidy(model: onnx.ModelProto) -> None:
    """Name nodes after the modules they came from: ``/block1/conv1/Conv`` becomes ``block1/conv1``.

    Args:
        model: The exported network, changed in place. Tensors between nodes take the name of the node that
            writes them; the exporter's ``Identity`` nodes, by which equal parameters share their storage, go.

    Raises:
        ValueError: Two nodes would have the same name.
    """
    shared = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
    nodes = [node for node in model.graph.node if node.op_type != "Identity"]
    tensors = {value.name: value.name for value in model.graph.output}
    names = set()
    for node in nodes:
        *modules, operator = node.name.strip("/").split("/")
        # A module's own operator is named after the module; the addition of a block is the block's own.
        if modules[-1].startswith("block"):
            modules.append(operator.lower())
        node.name = "/".join(modules)
        if node.name in names:
            raise ValueError(f"two nodes would be called {node.name}")
        names.add(node.name)
        for output in node.output:
            tensors.setdefault(output, node.name)
    for node in nodes:
        sources = [shared.get(name, name) for name in node.input]
        node.input[:] = [tensors.get(name, name) for name in sources]
        node.output[:] = [tensors[name] for name in node.output]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return how often the network is right.

    Args:
        network: The network.
        images: Inputs, shape ``(n, 1, 28, 28)``.
        labels: Class numbers, shape ``(n,)``.

    Returns:
        Top-1 in per cent.
    """
    network.eval()
    with torch.no_grad():
        right = [
            (network(part).argmax(1) == truth).sum()
            for part, truth in zip(images.split(500), labels.split(500), strict=True)
        ]
    return 100 * sum(int(n) for n in right) / len(labels)


def main() -> None:
    """Train the networks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), help="which networks; all")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "full", help="folder with Fashion-MNIST")
    parser.add_argument(
        "-o", "--out", type=Path, help="folder for ONNX files; models for those that are shipped, large for others"
    )
    parser.add_argument("--steps", type=int, help="another number of steps, to try something out")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no network {unknown[0]}; there are {', '.join(NETWORKS)}")
    arrays = read_idx(options.data)
    if arrays is None:
        parser.error(f"{options.data} holds no IDX files; `make data` fetches them")
    pixels, classes = arrays.parts["train"]
    keep = np.ones(len(pixels), bool)
    for indices in held_out(len(pixels)):
        keep[indices] = False
    images, labels = (
        scaled(pixels[keep], arrays.mean, arrays.std),
        torch.from_numpy(classes[keep].astype(np.int64)),
    )
    tests = scaled(arrays.parts["test"][0], arrays.mean, arrays.std)
    truth = torch.from_numpy(arrays.parts["test"][1].astype(np.int64))
    torch.set_num_threads(1)
    for name in options.names:
        torch.manual_seed(SEED)
        network = NETWORKS[name]().to(memory_format=torch.channels_last)
        recipe = RECIPES[name]
        if options.steps:
            recipe = replace(recipe, steps=options.steps)
        epochs = recipe.steps * BATCH / len(images)
        print(f"{name}: {recipe.steps} steps ({epochs:.1f} epochs) on {len(images)} images", flush=True)
        train(network, recipe, images, labels)
        folder = options.out or Path(__file__).parent / ("models" if recipe.shipped else "large")
        folder.mkdir(parents=True, exist_ok=True)
        export(network, folder / f"{name}.onnx")
        print(f"{name}: {accuracy(network, tests, truth):.2f} % of {len(truth)} test images", flush=True)


def scaled(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Return images as the networks take them, as `planner.dataset.Dataset.inputs` does.

    Args:
        pixels: uint8 images, shape ``(n, 1, 28, 28)``.
        mean: Mean of each channel of ``pixels / 255``.
        std: Standard deviation of the same.

    Returns:
        Float32 of the same shape.
    """
    values = torch.from_numpy(pixels.astype(np.float32)) / 255
    return (values - torch.tensor(mean).reshape(1, -1, 1, 1)) / torch.tensor(std).reshape(1, -1, 1, 1)


if __name__ == "__main__":
    main()
