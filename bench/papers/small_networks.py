"""A small VGG and a small ResNet with BatchNorm, for claims about channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.papers.networks import Network


def _convolution(in_width: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
    )


class SmallVGG(nn.Module):
    """Four 3x3 convolutions with BatchNorm on 8x8 pixels, as VGG stacks them, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for step in (32, 32, 0, 64, 64, 0):
            if step:
                layers += [_convolution(width, step), nn.ReLU()]
                width = step
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[samples, 10]` of images `[samples, 1, 8, 8]`."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the width changes (He et al. 2016)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        stride = 1 if in_width == width else 2
        self.first = _convolution(in_width, width, stride)
        self.second = _convolution(width, width)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, `[samples, width, ...]`."""
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem and three blocks of 16, 32 and 64 channels on 8x8 pixels, pooling, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(1, 16)
        self.blocks = nn.Sequential(Block(16, 16), Block(16, 32), Block(32, 64))
        self.classifier = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[samples, 10]` of images `[samples, 1, 8, 8]`."""
        x = self.blocks(torch.relu(self.stem(images)))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


SMALL_VGG = Network("a small VGG", SmallVGG, 8)
SMALL_RESNET = Network("a small ResNet", SmallResNet, 8)
