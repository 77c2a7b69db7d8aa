"""Small networks of each kind, trained on scikit-learn's digits: 1,437 images, 360 to judge by."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.quantise.networks import Block


class Residual(nn.Module):
    """Two maps of a convolution added to what it read."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(maps, maps, 3, padding=1, bias=False) for _ in "12")
        self.early, self.late = nn.BatchNorm2d(maps), nn.BatchNorm2d(maps)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.early(self.first(x)))
        return torch.relu(self.late(self.second(inner)) + x)


class Rows(nn.Module):
    """The rows of an image, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)


class Transformer(nn.Module):
    """Three blocks of width 64 over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.embed = Rows(), nn.Linear(8, 64)
        self.position = nn.Parameter(torch.randn(8, 64) / 8)
        self.blocks = nn.Sequential(*(Block(64, 4) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(self.rows(x)) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class Reader(nn.Module):
    """An LSTM of 128 over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.read = Rows(), nn.LSTM(8, 128, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.rows(x))[0].mean(1))


def perceptron() -> nn.Module:
    """LeNet-300-100."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    """LeNet-5 for images of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(200, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    """A stem of 32 maps and three residual blocks."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        Residual(32), nn.MaxPool2d(2), Residual(32), Residual(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": perceptron,
    "lenet5": lenet,
    "resnet": resnet,
    "transformer": Transformer,
    "lstm": Reader,
}


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and classes to train on, and to judge by: every fifth one."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    classes = torch.tensor(bunch.target, dtype=torch.int64)
    judged = torch.arange(len(classes)) % 5 == 0
    return images[~judged], classes[~judged], images[judged], classes[judged]


def trained(name: str, epochs: int) -> bytes:
    """The network's TorchScript file."""
    torch.manual_seed(0)
    images, classes, _, _ = digits()
    module = NETWORKS[name]().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(classes)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images[rows]), classes[rows]).backward()
            optimizer.step()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval().requires_grad_(False)), file)
    return file.getvalue()
