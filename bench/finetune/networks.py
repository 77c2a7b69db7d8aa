"""Three networks of different kinds of work: convolutions, patches with attention, a decoder.

Each is written as a person would write it in plain torch, for the eager loop trains these very
modules; ours trains what scripting and loading makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
VOCABULARY = 256
CONTEXT = 64


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if in_width != width or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 with the stem of ImageNet: 11.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        blocks: list[nn.Module] = []
        in_width = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_width, width, stride), BasicBlock(width, width, 1)]
            in_width = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(512, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.pool(torch.relu(self.norm(self.conv(images)))))
        return self.classifier(x.mean((2, 3)))


class Attention(nn.Module):
    """Heads of queries, keys and values from one projection."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.inputs = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, tokens, width = x.shape
        split = self.inputs(x).view(samples, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.outputs(mixed.transpose(1, 2).reshape(samples, tokens, width))


class Layer(nn.Module):
    """Attention and a feed-forward pair, each behind LayerNorm and a residual sum."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.rise = nn.Linear(width, 4 * width)
        self.fall = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fall(functional.gelu(self.rise(self.norm2(x))))


class ViT(nn.Module):
    """Six layers, 192 wide, on 64 patches of 4 x 4 pixels: 2.7 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 64, 192) * 0.02)
        self.layers = nn.Sequential(*[Layer(192, 3, causal=False) for _ in range(6)])
        self.norm = nn.LayerNorm(192)
        self.classifier = nn.Linear(192, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.classifier(self.norm(self.layers(x)).mean(1))


class Decoder(nn.Module):
    """Four layers, 128 wide, over 64 tokens of 256: 0.9 million parameters. Scores of the next
    token, [samples, vocabulary, tokens]."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 128)
        self.positions = nn.Parameter(torch.randn(1, CONTEXT, 128) * 0.02)
        self.layers = nn.Sequential(*[Layer(128, 4, causal=True) for _ in range(4)])
        self.norm = nn.LayerNorm(128)
        self.scores = nn.Linear(128, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.layers(self.tokens(tokens) + self.positions)
        return self.scores(self.norm(x)).transpose(1, 2)


@dataclass(frozen=True)
class Network:
    """A network, its data and its optimiser.

    Attributes:
        build: makes the module with new weights.
        data: makes inputs and targets for as many samples, from a generator.
        batch_size: samples of a step.
        steps: of a block, which is an epoch of about five seconds on one core. What an epoch costs
            besides its steps is the same for any length, so a much shorter one overstates it.
        optimizer: of the recipe.
    """

    build: Callable[[], nn.Module]
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    batch_size: int
    steps: int
    optimizer: dict[str, str | float]


def _images(side: int) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def make(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise over a pattern of the class: learnable."""
        patterns = torch.randn(CLASSES, 3, side, side, generator=generator)
        targets = torch.randint(CLASSES, (samples,), generator=generator)
        noise = torch.randn(samples, 3, side, side, generator=generator)
        return 0.5 * patterns[targets] + noise, targets

    return make


def _text(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each token follows from the one before by a fixed table, with some noise."""
    table = torch.randperm(VOCABULARY, generator=generator)
    columns = [torch.randint(VOCABULARY, (samples,), generator=generator)]
    for _ in range(CONTEXT):
        lost = torch.rand(samples, generator=generator) < 0.1
        random = torch.randint(VOCABULARY, (samples,), generator=generator)
        columns.append(torch.where(lost, random, table[columns[-1]]))
    text = torch.stack(columns, dim=1)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


_SGD: dict[str, str | float] = {"kind": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
_ADAMW: dict[str, str | float] = {"kind": "adamw", "lr": 3e-4, "weight_decay": 0.05}

NETWORKS = {
    "resnet18": Network(ResNet18, _images(64), 32, 12, _SGD),
    "vit": Network(ViT, _images(32), 32, 12, _ADAMW),
    "decoder": Network(Decoder, _text, 16, 40, _ADAMW),
}
