"""LeNet-5 (LeCun et al. 1998), with max pooling and ReLU as Han et al. 2015 prune it."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet5(nn.Module):
    """Two 5x5 convolutions with pooling, then three fully connected layers.

    Inputs of 20 pixels or more go in unpadded as in the paper; smaller ones (digits of 8x8) are
    padded so that both pooling steps still have something to halve.
    """

    def __init__(self, num_classes: int = 10, in_size: int = 28, in_channels: int = 1) -> None:
        super().__init__()
        padding = 0 if in_size >= 20 else 2
        side = in_size
        for _ in range(2):
            side = (side + 2 * padding - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 20, 5, padding=padding)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=padding)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(images)))
        x = self.pool(self.relu(self.conv2(x)))
        x = x.flatten(1)
        x = self.relu(self.fc1(x))
        x = self.relu(self.fc2(x))
        return self.fc3(x)


def lenet5(num_classes: int = 10, in_size: int = 28, in_channels: int = 1) -> LeNet5:
    """LeNet-5 for square images of `in_size` pixels."""
    return LeNet5(num_classes, in_size, in_channels)
