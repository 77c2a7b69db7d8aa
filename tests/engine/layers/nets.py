"""Small residual networks whose numbers can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Branch(nn.Module):
    """x + W x."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.fc.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x)


def chain(*weights: Tensor) -> nn.Sequential:
    """Branches one after the other, called 0, 1, ..."""
    return nn.Sequential(*(Branch(weight) for weight in weights))


def scaling(factor: float) -> Tensor:
    return factor * torch.eye(2)


def turning(tangent: float) -> Tensor:
    """Adds a vector at a right angle, `tangent` times as long."""
    return tangent * torch.tensor([[0.0, -1.0], [1.0, 0.0]])


class PreNorm(nn.Module):
    """A pre-norm transformer block (Xiong et al. 2020) with its attention written out."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))
        self.drop = nn.Dropout(0.1)

    def attention(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.ln_1(x)))
        return x + self.drop(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    """Two pre-norm blocks over an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 12)
        self.blocks = nn.Sequential(PreNorm(), PreNorm())
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(tokens))))


class DigitsBlock(nn.Module):
    """Two convolutions past an identity, summed in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


class DigitsNet(nn.Module):
    """A residual network for images of 8 x 8: 4 branches of 8 channels, 4,736 of 4,898 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(DigitsBlock(8) for _ in range(4)))
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))
