"""Small networks whose modules give features."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from engine.torchscript.program import Program

IMAGE = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)


class Block(nn.Module):
    """A residual block that overwrites in place, as those of the field do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.bn1(self.conv1(x))))
        out += x
        return self.relu(out)


class ConvNet(nn.Module):
    """A stem, two residual blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.layer = nn.Sequential(Block(8), Block(8))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """One head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), dim=-1)
        return share @ self.v(x)


class Encoder(nn.Module):
    """Attention and a feed-forward part, each around a shortcut."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return self.norm(x + self.down(torch.relu(self.up(x))))


class Transformer(nn.Module):
    """Tokens in, scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.encoder = Encoder()
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))


TOKENS = (torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]),)


def exported(module: nn.Module, inputs: tuple[Any, ...], how: str) -> bytes:
    """A TorchScript file, traced or scripted."""
    made = torch.jit.script(module) if how == "script" else torch.jit.trace(module, inputs)
    buffer = io.BytesIO()
    torch.jit.save(made, buffer)
    return buffer.getvalue()


def loaded(module: nn.Module, inputs: tuple[Any, ...], how: str = "trace") -> Program:
    """The program of it."""
    return Program.load(exported(module.eval(), inputs, how))


def seeded(make: type[nn.Module]) -> nn.Module:
    """Weights that are the same each time."""
    torch.manual_seed(0)
    return make().eval()
