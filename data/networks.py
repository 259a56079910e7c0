"""The networks that come with blinkplan, as PyTorch modules for 1x28x28 images and ten classes.

Modules carry the names that the exported ONNX nodes have: ``conv1``, ``pool1``, ``block2/conv1``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

__all__ = ["NETWORKS", "quick", "resnet8", "vgg16", "vgg16q", "vggs"]


def quick() -> nn.Module:
    """Build the shape of Caffe's ``cifar10_quick``: three 5x5 convolutions with pooling, two dense layers.

    Returns:
        The untrained network; 144 thousand parameters.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5, padding=2),
            pool1=nn.MaxPool2d(3, 2, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 32, 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(3, 2, padding=1),
            conv3=nn.Conv2d(32, 64, 5, padding=2),
            relu3=nn.ReLU(),
            pool3=nn.AvgPool2d(3, 2, padding=1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * 4 * 4, 64),
            fc2=nn.Linear(64, 10),
        ),
    )


def vggs() -> nn.Module:
    """Build a small VGG: six 3x3 convolutions with batch normalisation in three stages, two dense layers.

    Returns:
        The untrained network; 222 thousand parameters.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 1
    for number, width in enumerate((16, 16, 32, 32, 64, 64), start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            layers[f"pool{number // 2}"] = nn.MaxPool2d(2)
        channels = width
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(64 * 3 * 3, 256)
    layers["relu7"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(0.3)
    layers["fc2"] = nn.Linear(256, 10)
    return nn.Sequential(layers)


def vgg16(width: int = 64) -> nn.Module:
    """Build VGG16 (Simonyan and Zisserman, ICLR 2015) with batch normalisation, for images scaled to 32x32.

    Configuration D: thirteen 3x3 convolutions in five stages. At 32x32 the last stage leaves one pixel, so that one
    dense layer of as many units as the last stage and the classifier take the place of its three of 4096 units. The
    network scales its 28x28 images itself, so that it reads what the other networks read.

    Args:
        width: Channels of the first stage; later ones have up to eight times as many.

    Returns:
        The untrained network; 15.0 million parameters at full width.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(scale=nn.Upsample(size=(32, 32), mode="bilinear"))
    channels = 1
    for stage, (factor, depth) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), start=1):
        for number in range(1, depth + 1):
            layers[f"conv{stage}_{number}"] = nn.Conv2d(channels, factor * width, 3, padding=1, bias=False)
            layers[f"norm{stage}_{number}"] = nn.BatchNorm2d(factor * width)
            layers[f"relu{stage}_{number}"] = nn.ReLU()
            channels = factor * width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(channels, channels)
    layers["relu6"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(0.3)
    layers["fc2"] = nn.Linear(channels, 10)
    return nn.Sequential(layers)


def vgg16q() -> nn.Module:
    """Build `vgg16` at a quarter of its width.

    Returns:
        The untrained network; 0.94 million parameters.
    """
    return vgg16(width=16)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.norm3 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Run both branches and add them.

        Args:
            image: Activations of shape ``(n, channels, H, W)``.

        Returns:
            Activations of shape ``(n, width, H / stride, W / stride)``.
        """
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(image)))))
        straight = image if self.shortcut is None else self.norm3(self.shortcut(image))
        result: torch.Tensor = self.relu2(branch + straight)
        return result


def resnet8() -> nn.Module:
    """Build a residual network of three blocks, 16, 32 and 64 channels wide.

    Returns:
        The untrained network; 78 thousand parameters.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(16),
            relu1=nn.ReLU(),
            block1=Block(16, 16, 1),
            block2=Block(16, 32, 2),
            block3=Block(32, 64, 2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, 10),
        ),
    )


NETWORKS = {"quick": quick, "resnet8": resnet8, "vggs": vggs, "vgg16q": vgg16q, "vgg16": vgg16}
