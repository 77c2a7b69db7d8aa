"""Layer kinds, one small network each: half of every group goes, and these widths stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.core.programs import halve, scripted, traced

Shapes = dict[str, list[int]]


class FrozenBatchNorm(nn.Module):
    """BatchNorm as arithmetic on four buffers, as detection models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        variance = self.running_var.reshape(1, -1, 1, 1)
        mean = self.running_mean.reshape(1, -1, 1, 1)
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class FrozenNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), FrozenBatchNorm(8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.a(x))))


class TiedHead(nn.Module):
    """The rows of the embedding are also the weights of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.table(x)
        return self.head(y + torch.tanh(self.a(y)))


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.b(torch.relu(self.a(x))))
        return self.c(torch.relu(self.b(y)))


class JoinedWithItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.b(torch.cat([y, y], 1))


class Bare(nn.Module):
    """Parameters that belong to no layer: a gain, a shift and a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)
        self.gain, self.shift = nn.Parameter(torch.rand(8)), nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gain * self.a(x) + self.shift
        return self.b(torch.relu(y + self.positions))


class Multiplied(nn.Module):
    """Two output channels for every input channel of a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 1)
        self.b = nn.Conv2d(6, 12, 3, groups=6, bias=False)
        self.c = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 16, 3, groups=4, bias=False)
        self.c = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class TransposedGrouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2)
        self.c = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class TransposedDepthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8, bias=False)
        self.c = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class OneDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.b, self.c = nn.Conv1d(8, 8, 3, groups=8), nn.ConvTranspose1d(8, 6, 2)
        self.d = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.c(self.b(torch.relu(self.norm(self.a(x))))))
        return self.d(F.max_pool1d(y, 2).mean(2))


class ThreeDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8)
        self.b, self.c = nn.Conv3d(8, 6, (1, 3, 3)), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.b(torch.relu(self.norm(self.a(x)))))
        return self.c(F.adaptive_avg_pool3d(y, 1).flatten(1))


class PixelShuffled(nn.Module):
    """Channel c of the result takes channels 4 c to 4 c + 3."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shuffle, self.b = nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.shuffle(self.a(x))))


class PixelUnshuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.unshuffle = nn.Conv2d(3, 4, 3, padding=1), nn.PixelUnshuffle(2)
        self.b = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.unshuffle(self.a(x))))


class ChannelShuffled(nn.Module):
    """Position p of group g goes to place 2 p + g, where the next convolution groups anew."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shuffle = nn.Conv2d(3, 8, 1), nn.ChannelShuffle(2)
        self.b, self.c = nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(self.shuffle(torch.relu(self.a(x))))))


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    widths: Shapes


def image(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape)


IMAGE = image(2, 3, 8, 8)
CASES = [
    Case(
        FrozenNormed,
        IMAGE,
        {
            "a.weight": [4, 3, 3, 3],
            "norm.weight": [4],
            "norm.bias": [4],
            "norm.running_mean": [4],
            "norm.running_var": [4],
            "b.weight": [2, 4, 1, 1],
        },
    ),
    Case(
        TiedHead,
        lambda: torch.randint(0, 9, (2, 5)),
        {"table.weight": [9, 3], "head.weight": [9, 3], "a.weight": [3, 3], "head.bias": [9]},
    ),
    Case(UsedTwice, IMAGE, {"a.weight": [4, 3, 1, 1], "b.weight": [4, 4, 3, 3], "b.bias": [4]}),
    Case(JoinedWithItself, IMAGE, {"a.weight": [3, 3, 3, 3], "b.weight": [2, 6, 1, 1]}),
    Case(
        Bare,
        image(2, 5, 3),
        {"a.weight": [4, 3], "gain": [4], "shift": [1, 1, 4], "positions": [1, 5, 4]},
    ),
    Case(
        Multiplied,
        IMAGE,
        {"a.weight": [3, 3, 1, 1], "b.weight": [6, 1, 3, 3], "c.weight": [2, 6, 1, 1]},
    ),
    Case(
        Grouped,
        IMAGE,
        {"a.weight": [4, 3, 1, 1], "b.weight": [8, 1, 3, 3], "c.weight": [2, 8, 1, 1]},
    ),
    Case(
        TransposedGrouped,
        IMAGE,
        {
            "a.weight": [4, 3, 1, 1],
            "b.weight": [4, 3, 2, 2],
            "b.bias": [6],
            "c.weight": [2, 6, 1, 1],
        },
    ),
    Case(
        TransposedDepthwise,
        IMAGE,
        {"a.weight": [4, 3, 1, 1], "b.weight": [4, 1, 2, 2], "c.weight": [2, 4, 1, 1]},
    ),
    Case(
        OneDimensional,
        image(2, 4, 12),
        {
            "a.weight": [4, 4, 3],
            "norm.running_var": [4],
            "b.weight": [4, 1, 3],
            "c.weight": [4, 3, 2],
            "d.weight": [2, 3],
        },
    ),
    Case(
        ThreeDimensional,
        image(2, 2, 4, 6, 6),
        {"a.weight": [4, 2, 3, 3, 3], "b.weight": [3, 4, 1, 3, 3], "c.weight": [2, 3]},
    ),
    Case(PixelShuffled, IMAGE, {"a.weight": [8, 3, 3, 3], "b.weight": [2, 2, 1, 1]}),
    Case(PixelUnshuffled, IMAGE, {"a.weight": [2, 3, 3, 3], "b.weight": [2, 8, 1, 1]}),
    Case(
        ChannelShuffled,
        IMAGE,
        {"a.weight": [4, 3, 1, 1], "b.weight": [4, 2, 3, 3], "c.weight": [2, 4, 1, 1]},
    ),
]


@pytest.mark.parametrize("export", ["script", "trace"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_half_of_every_group(case: Case, export: str) -> None:
    torch.manual_seed(0)
    model, inputs = case.make().eval(), [case.inputs()]
    program = scripted(model) if export == "script" else traced(model, inputs)
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert len(certificate.batch_sizes) == 2
    found = compacted.attributes()
    assert {name: list(found[name].shape) for name in case.widths} == case.widths
    before, after = program.run(inputs), compacted.run(inputs)
    assert before.shape == after.shape
