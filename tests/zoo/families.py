"""What each family of architectures does that others do not, in miniature.

One network a family, a few thousand weights each, with the family's own way of moving channels
about: shuffles, windows, gates, shared keys, rotary positions, dense connections.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ShuffleNet(nn.Module):
    """Ma et al. 2018: channels split in two, one half convolved, both shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 8, 1),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.Conv2d(8, 8, 1),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, branch(right)), dim=1)
            batch, channels, height, width = x.shape
            x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
            x = x.reshape(batch, channels, height, width)
        return self.head(x.mean((2, 3)))


class DenseNet(nn.Module):
    """Huang et al. 2017: every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, layer in zip(self.norms, self.layers):  # noqa: B905  TorchScript's zip
            features.append(layer(torch.relu(norm(torch.cat(features, 1)))))
        return self.head(torch.cat(features, 1).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Tan & Le 2019: inverted bottleneck, depthwise, channels gated by their own averages."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.depth(F.silu(self.expand(x))))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.project(x * gate).mean((2, 3)))


class ConvNext(nn.Module):
    """Liu et al. 2022: depthwise, then channels last, layer norm, and a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 2, stride=2)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.scale = nn.Parameter(torch.rand(12, 1, 1))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.head((x + self.scale * y).mean((2, 3)))


class Swin(nn.Module):
    """Liu et al. 2021: windows, shifted by a roll, attention with a table of relative biases."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(9, 4))
        self.merge = nn.Linear(64, 24, bias=False)
        self.head = nn.Linear(24, 5)
        grid = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij"))
        offset = grid.flatten(1)[:, :, None] - grid.flatten(1)[:, None, :] + 1
        self.register_buffer("positions", (offset[0] * 3 + offset[1]).flatten())

    def _attend(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        scores = qkv[0] * (width // 4) ** -0.5 @ qkv[1].transpose(-2, -1)
        bias = self.table[self.positions].view(length, length, -1).permute(2, 0, 1)
        mixed = (scores + bias.unsqueeze(0)).softmax(-1) @ qkv[2]
        return self.out(mixed.transpose(1, 2).reshape(count, length, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        y = self._attend(y.reshape(-1, 4, channels))
        y = y.view(batch, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(batch, height, width, channels), (1, 1), (1, 2))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.head(self.merge(torch.cat(corners, -1)).mean((1, 2)))


class Llama(nn.Module):
    """Touvron et al. 2023: RMS norm, rotary positions, grouped queries, gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.scale = nn.Parameter(torch.rand(24) + 0.5)
        self.q, self.k, self.v = (
            nn.Linear(24, 24, bias=False),
            nn.Linear(24, 12, bias=False),
            nn.Linear(24, 12, bias=False),
        )
        self.o = nn.Linear(24, 24, bias=False)
        self.gate, self.up = nn.Linear(24, 40, bias=False), nn.Linear(24, 40, bias=False)
        self.down = nn.Linear(40, 24, bias=False)
        self.register_buffer("frequencies", 1.0 / 10 ** (torch.arange(0, 6, 2) / 6))

    def norm(self, x: Tensor) -> Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.size(2))[:, None] * self.frequencies
        angles = torch.cat((angles, angles), -1)
        half = x.size(-1) // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        batch, length, _ = x.shape
        y = self.norm(x)
        q = self.rotate(self.q(y).view(batch, length, 4, 6).transpose(1, 2))
        k = self.rotate(self.k(y).view(batch, length, 2, 6).transpose(1, 2))
        v = self.v(y).view(batch, length, 2, 6).transpose(1, 2)
        k = k[:, :, None].expand(batch, 2, 2, length, 6).reshape(batch, 4, length, 6)
        v = v[:, :, None].expand(batch, 2, 2, length, 6).reshape(batch, 4, length, 6)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, -1))
        x = x + self.down(F.silu(self.gate(self.norm(x))) * self.up(self.norm(x)))
        return x @ self.embed.weight.t()


class Gpt2(nn.Module):
    """Radford et al. 2019: weights as [in, out] in addmm, one projection split in three."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.Parameter(torch.randn(16, 48) * 0.2)
        self.attention_bias = nn.Parameter(torch.randn(48) * 0.1)
        self.project = nn.Parameter(torch.randn(16, 16) * 0.2)
        self.register_buffer("causal", torch.ones(1, 1, 32, 32, dtype=torch.bool).tril())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        batch, length, width = x.shape
        y = torch.addmm(self.attention_bias, self.norm(x).view(-1, width), self.attention)
        parts = y.view(batch, length, -1).split(width, dim=2)
        q, k, v = [part.view(batch, length, 2, width // 2).transpose(1, 2) for part in parts]
        scores = q @ k.transpose(-1, -2) / math.sqrt(v.size(-1))
        scores = scores.masked_fill(~self.causal[:, :, :length, :length], -1e4)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        return (x + mixed @ self.project) @ self.embed.weight.t()


class UNet(nn.Module):
    """Ronneberger et al. 2015: down, up by a transposed convolution, joined with the way down."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.enter(x))
        y = self.up(torch.relu(self.norm(self.down(x))))
        return self.head(torch.relu(self.join(torch.cat((x, y), 1))))


class Raft(nn.Module):
    """Teed & Deng 2020: a convolutional gated unit run a few times, its state cut from features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 16, 3, padding=1)
        self.z, self.r = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.q = nn.Conv2d(16, 8, 3, padding=1)
        self.flow = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        state, context = torch.split(self.features(x), [8, 8], dim=1)
        state, context = torch.tanh(state), torch.relu(context)
        for _ in range(2):
            both = torch.cat((state, context), 1)
            update, reset = torch.sigmoid(self.z(both)), torch.sigmoid(self.r(both))
            new = torch.tanh(self.q(torch.cat((reset * state, context), 1)))
            state = (1 - update) * state + update * new
        return self.flow(state)


class SuperResolution(nn.Module):
    """Shi et al. 2016: channels become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.middle = nn.Conv2d(4, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(torch.relu(self.enter(x)), 2)
        return F.pixel_shuffle(self.middle(x), 2)


class Speech(nn.Module):
    """Baevski et al. 2020: strided Conv1d with group norm, then a bidirectional recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 12, 5, stride=2)
        self.norm = nn.GroupNorm(12, 12, affine=False)
        self.second = nn.Conv1d(12, 8, 3, stride=2)
        self.recurrent = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.second(F.gelu(self.first(x))))
        y, _ = self.recurrent(x.transpose(1, 2))
        return self.head(y)


class Mixer(nn.Module):
    """Tolstikhin et al. 2021: one multilayer perceptron over positions, one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.norm = nn.LayerNorm(12)
        self.token_up, self.token_down = nn.Linear(4, 10), nn.Linear(10, 4)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        y = self.token_down(F.gelu(self.token_up(self.norm(x).transpose(1, 2))))
        x = x + y.transpose(1, 2)
        return self.head((x + self.down(F.gelu(self.up(self.norm(x))))).mean(1))


def _image(side: int) -> list[Tensor]:
    return [torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))]


def _tokens() -> list[Tensor]:
    return [torch.randint(50, (1, 7), generator=torch.Generator().manual_seed(1))]


FAMILIES = {
    "shufflenet": (ShuffleNet, _image(8)),
    "densenet": (DenseNet, _image(8)),
    "squeeze_excite": (SqueezeExcite, _image(8)),
    "convnext": (ConvNext, _image(8)),
    "swin": (Swin, _image(8)),
    "llama": (Llama, _tokens()),
    "gpt2": (Gpt2, _tokens()),
    "unet": (UNet, _image(8)),
    "raft": (Raft, _image(8)),
    "super_resolution": (SuperResolution, _image(8)),
    "speech": (Speech, [torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(1))]),
    "mixer": (Mixer, _image(8)),
}
"""By name: how to make the network, and arguments of its forward."""
