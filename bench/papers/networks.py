"""The networks of the papers, for digits, and their initial weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class LeNet300(nn.Module):
    """LeNet-300-100 (LeCun et al. 1998) on 8x8 pixels: 50,610 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[samples, 10]` of images `[samples, 1, 8, 8]`."""
        x = torch.relu(self.fc1(images.flatten(1)))
        logits: Tensor = self.fc3(torch.relu(self.fc2(x)))
        return logits


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) on 28x28 pixels, max pooling and ReLU: 44,426 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[samples, 10]` of images `[samples, 1, 28, 28]`."""
        x = self.pool(torch.relu(self.conv1(images)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(torch.relu(self.fc2(x)))
        return logits


@dataclass(frozen=True)
class Network:
    """A network to try a claim on.

    Attributes:
        name: as the page has it.
        build: makes it; weights are drawn from torch's global generator.
        size: side of the images it takes, in pixels.
    """

    name: str
    build: Callable[[], nn.Module]
    size: int

    def initial(self, seed: int) -> nn.Module:
        """The untrained network of a seed."""
        torch.manual_seed(seed)
        return self.build()


LENET_300_100 = Network("LeNet-300-100", LeNet300, 8)
LENET_5 = Network("LeNet-5", LeNet5, 28)
