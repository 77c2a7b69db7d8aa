"""Tiny models and datasets: one good of each, and one for every way to be wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = [1, 1, 8, 8]


class Small(nn.Module):
    """Two convolutions and a classifier of 3 classes on 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x))
        return self.classifier(x.mean([2, 3]))


class Raises(Small):
    """Its own code raises."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) > 0:
            raise ValueError("the weather is wrong")
        return self.classifier(self.second(self.first(x)).mean([2, 3]))


class WritesFiles(Small):
    """Calls an operator that no model has business with."""

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "/tmp/stolen")  # noqa: S108 - never runs: refused at upload
        return self.classifier(self.second(self.first(x)).mean([2, 3]))


class Mixes(Small):
    """An operator without a coupling rule between the convolutions: they cannot be pruned there."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(torch.cumsum(x, 1)))
        return self.classifier(x.mean([2, 3]))


def scripted() -> dict[str, torch.jit.ScriptModule]:
    """Models by name, weights seeded."""
    torch.manual_seed(0)
    kinds = {"small": Small, "raises": Raises, "writes_files": WritesFiles, "mixes": Mixes}
    return {name: torch.jit.script(kind().eval()) for name, kind in kinds.items()}


def datasets() -> dict[str, dict[str, Tensor]]:
    """Datasets by name: brightness classes that a small network learns at once."""
    generator = torch.Generator().manual_seed(0)

    def split(samples: int) -> tuple[Tensor, Tensor]:
        targets = torch.arange(samples) % 3
        noise = torch.randn(samples, *SHAPE[1:], generator=generator)
        return (noise * 0.1 + targets.view(-1, 1, 1, 1)).contiguous(), targets

    def tensors(train: int = 96, validation: int = 48) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for name, samples in (("train", train), ("validation", validation)):
            named[f"{name}/inputs/0"], named[f"{name}/targets/0"] = split(samples)
        return named

    good = tensors()
    return {
        "good": good,
        "empty": tensors(train=0, validation=0),
        "float_targets": good | {"train/targets/0": good["train/targets/0"].float()},
    }
