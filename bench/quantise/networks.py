"""Networks whose weights are stored small: matrices of one, kernels of the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.torchscript.program import Program


@dataclass(frozen=True)
class Network:
    """A network and what it takes.

    Attributes:
        build: makes it with random weights; what is measured here does not depend on their values.
        example: inputs for a batch size.
    """

    build: Callable[[], nn.Module]
    example: Callable[[int], Tensor]

    def program(self) -> Program:
        """The network as an upload."""
        torch.manual_seed(0)
        module = self.build().eval().requires_grad_(False)
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(module), file)
        return Program.load(file.getvalue())


class Block(nn.Module):
    """A transformer block without fused operators."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.gather = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        mixed = self.attend(self.before(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.gather(seen.transpose(1, 2).reshape(batch, length, width))
        inner = nn.functional.gelu(self.widen(self.between(x)))
        return x + self.narrow(inner)


def transformer() -> nn.Module:
    """Four blocks of width 256: 3.2 million weights, all in linear layers."""
    return nn.Sequential(*(Block(256, 4) for _ in range(4)), nn.Linear(256, 10))


def convolutional() -> nn.Module:
    """Seven 3 x 3 convolutions up to 256 maps: 1.7 million weights, nearly all of them kernels."""
    layers: list[nn.Module] = []
    maps = 3
    for wider in (64, 64, 0, 128, 128, 0, 256, 256, 256):
        if wider:
            layers += [
                nn.Conv2d(maps, wider, 3, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(),
            ]
            maps = wider
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, 10))


NETWORKS = {
    "linear-heavy": Network(transformer, lambda batch: torch.randn(batch, 64, 256)),
    "conv-heavy": Network(convolutional, lambda batch: torch.randn(batch, 3, 32, 32)),
}
