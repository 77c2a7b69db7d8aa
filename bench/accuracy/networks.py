"""Small networks of four families for digits of one channel and 32 x 32 pixels.

Narrow enough that an epoch of 1,150 images takes about a second on one core, and wide enough that
one channel is a small step in MACs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSES = 10
SIDE = 32


def _convolution(
    in_width: int, width: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and BatchNorm, without an activation."""
    return nn.Sequential(
        nn.Conv2d(in_width, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    )


class VGG(nn.Module):
    """3x3 convolutions with BatchNorm, pooling between them, a hidden layer (Simonyan 2015)."""

    def __init__(self, plan: tuple[int | str, ...], hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, side = 1, SIDE
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                side //= 2
                continue
            layers += [_convolution(width, step), nn.ReLU()]
            width = step
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(width * side * side, hidden)
        self.classifier = nn.Linear(hidden, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(self.features(images).flatten(1)))
        return self.classifier(hidden)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He 2016)."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(in_width, width, stride=stride)
        self.second = _convolution(width, width)
        same = in_width == width and stride == 1
        self.shortcut = (
            nn.Identity() if same else _convolution(in_width, width, kernel=1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, three stages of two blocks, pooling, classifier."""

    def __init__(self, base: int) -> None:
        super().__init__()
        self.stem = _convolution(1, base, stride=2)
        self.pool = nn.MaxPool2d(2)
        blocks: list[nn.Module] = []
        width = base
        for wider, stride in ((1, 1), (2, 2), (4, 2)):
            blocks += [
                BasicBlock(width, base * wider, stride),
                BasicBlock(base * wider, base * wider, 1),
            ]
            width = base * wider
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.pool(torch.relu(self.stem(images))))
        return self.classifier(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler 2018)."""

    def __init__(self, in_width: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_width * expansion
        self.expand = _convolution(in_width, inner, kernel=1)
        self.depthwise = _convolution(inner, inner, stride=stride, groups=inner)
        self.project = _convolution(inner, width, kernel=1)
        self.shortcut = stride == 1 and in_width == width

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.relu6(self.expand(x))
        y = self.project(nn.functional.relu6(self.depthwise(inner)))
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """Stem, inverted residuals, last convolution, pooling, classifier."""

    def __init__(self, widths: tuple[tuple[int, int], ...], last: int) -> None:
        super().__init__()
        width = widths[0][0]
        self.stem = _convolution(1, width, stride=2)
        blocks = []
        for wide, stride in widths:
            blocks.append(InvertedResidual(width, wide, stride, 4))
            width = wide
        self.blocks = nn.Sequential(*blocks)
        self.last = _convolution(width, last, kernel=1)
        self.classifier = nn.Linear(last, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(nn.functional.relu6(self.stem(images)))
        return self.classifier(nn.functional.relu6(self.last(x)).mean((2, 3)))


class Attention(nn.Module):
    """Separate projections, for both sides to know the heads; the scale stays the original's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        query, key = self._split(self.query(x)), self._split(self.key(x))
        weights = (query @ key.transpose(-2, -1) * self.scale).softmax(-1)
        mixed = (weights @ self._split(self.value(x))).transpose(1, 2).flatten(2)
        return self.output(mixed)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward pair, each behind LayerNorm and a residual sum."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.rise = nn.Linear(width, inner)
        self.fall = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.fall(nn.functional.gelu(self.rise(self.norm(x))))


class ViT(nn.Module):
    """Patches, positions, encoder layers, the mean of all tokens (Dosovitskiy 2021)."""

    def __init__(self, patch: int, width: int, heads: int, inner: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, (SIDE // patch) ** 2, width) * 0.02)
        self.layers = nn.Sequential(*[EncoderLayer(width, heads, inner) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.classifier(self.norm(self.layers(x)).mean(1))


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        build: makes the module with new weights.
        epochs: of the training of the dense network.
        finetuning: epochs after pruning, short ones, for after long ones all criteria are alike.
            MobileNet gets a second one: after 18 steps the statistics of its many BatchNorms are
            still those of before.
    """

    build: Callable[[], nn.Module]
    epochs: int
    finetuning: int


NETWORKS = {
    "vgg": Network(lambda: VGG((12, "M", 24, "M", 48, 48, "M", 64, 64, "M"), 64), 10, 1),
    "resnet": Network(lambda: ResNet(24), 10, 1),
    "mobilenet": Network(
        lambda: MobileNet(((16, 1), (24, 2), (24, 1), (40, 2), (40, 1)), 128), 10, 2
    ),
    "vit": Network(lambda: ViT(8, 64, 4, 128, 3), 25, 3),
}
