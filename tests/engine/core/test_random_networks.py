"""Property: whatever network Hypothesis builds, half of it leaves and the certificate holds."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from engine.certify import certify
from engine.compaction import compact
from engine.coupling import couple
from engine.torchscript.program import Program
from tests.engine.core.programs import half, scripted, traced

CHANNELS = 12
EXAMPLES = 40 if settings().derandomize else 300
"""The same 40 in every test run; others with `make fuzz`."""


class Branches(nn.Module):
    def __init__(self, join: str) -> None:
        super().__init__()
        self.join = join
        self.left = nn.Conv2d(CHANNELS, CHANNELS // (2 if join == "cat" else 1), 1)
        self.right = nn.Conv2d(CHANNELS, CHANNELS // (2 if join == "cat" else 1), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.join == "cat":
            return torch.cat([a, b], 1)
        if self.join == "gate":
            return a * torch.sigmoid(b)
        return x + a + b


class Attend(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        packed = self.qkv(tokens).view(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(packed[0], packed[1], packed[2])
        joined = self.out(mixed.transpose(1, 2).reshape(b, h * w, -1))
        return x + joined.transpose(1, 2).reshape(b, -1, h, w)


class Shuffled(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        b, c, h, w = y.shape
        return y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(4, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(torch.relu(self.down(pooled))))


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS // 2, CHANNELS // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return torch.cat([self.conv(left), right], 1)


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.wide, self.narrow = nn.Linear(CHANNELS, 20), nn.Linear(20, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        return x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)


class Standardized(nn.Conv2d):
    """Weights normalised over input channels and kernel."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0)
        return F.conv2d(input, weight.reshape_as(self.weight), self.bias, padding=1)


class Permuted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order]


class Rows(nn.Module):
    """A recurrent layer over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(CHANNELS, CHANNELS // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        found, _ = self.gru(x.flatten(2).transpose(1, 2))
        return x + found.transpose(1, 2).reshape(b, -1, h, w)


class SharedKeys(nn.Module):
    """Two queries to each head of keys and values, as an equation."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(CHANNELS, 4 * 3)
        self.k, self.v = nn.Linear(CHANNELS, 2 * 3), nn.Linear(CHANNELS, 2 * 3)
        self.out = nn.Linear(4 * 3, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q = self.q(tokens).view(b, h * w, 4, 3)
        k = self.k(tokens).view(b, h * w, 2, 3).repeat_interleave(2, 2)
        v = self.v(tokens).view(b, h * w, 2, 3).repeat_interleave(2, 2)
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
        return x + self.out(mixed).transpose(1, 2).reshape(b, -1, h, w)


class Padded(nn.Module):
    """Padded, moved and cut again, then read in the shape it had."""

    def forward(self, x: Tensor) -> Tensor:
        wide = F.pad(x, (1, 1, 2, 0))
        return torch.roll(wide, 1, 3)[:, :, 2:, 1:-1].flatten(1).reshape_as(x)


def block(kind: str) -> nn.Module:
    made: dict[str, Any] = {
        "conv": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        "batch_norm": lambda: nn.BatchNorm2d(CHANNELS),
        "group_norm": lambda: nn.GroupNorm(3, CHANNELS),
        "instance_norm": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
        "relu": nn.ReLU,
        "hardswish": nn.Hardswish,
        "prelu": lambda: nn.PReLU(CHANNELS),
        "depthwise": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
        "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1),
        "shuffle2": lambda: Shuffled(2),
        "shuffle4": lambda: Shuffled(4),
        "add": lambda: Branches("add"),
        "cat": lambda: Branches("cat"),
        "gate": lambda: Branches("gate"),
        "attend2": lambda: Attend(2),
        "attend3": lambda: Attend(3),
        "squeeze": Squeeze,
        "halves": Halves,
        "channels_last": ChannelsLast,
        "standardized": Standardized,
        "permuted": Permuted,
        "rows": Rows,
        "shared_keys": SharedKeys,
        "padded": Padded,
    }
    module: nn.Module = made[kind]()
    return module


KINDS = [
    "conv", "batch_norm", "group_norm", "instance_norm", "relu", "hardswish", "prelu", "depthwise",
    "transposed", "shuffle2", "shuffle4", "add", "cat", "gate", "attend2", "attend3", "squeeze",
    "halves", "channels_last", "standardized", "permuted", "rows", "shared_keys", "padded",
]  # fmt: skip


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    head=st.sampled_from(["flatten", "pool"]),
    script=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_network_certifies(kinds: list[str], head: str, script: bool, seed: int) -> None:
    torch.manual_seed(seed)
    tail: list[nn.Module] = (
        [nn.Flatten(), nn.Linear(CHANNELS * 16, 3)]
        if head == "flatten"
        else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3)]
    )
    model = nn.Sequential(nn.Conv2d(2, CHANNELS, 1), *map(block, kinds), *tail)
    inputs = [torch.randn(2, 2, 4, 4)]
    program = scripted(model) if script else traced(model, inputs)
    coupling = couple(program, inputs)
    removed = half(coupling, seed)
    assert removed.size > 0
    compacted = compact(program, coupling, removed, inputs)
    certificate = certify(program, compacted, coupling, removed, inputs)
    assert certificate.passed, (kinds, certificate)
    reloaded = Program.load(compacted.to_bytes())
    assert reloaded.run([torch.randn(3, 2, 4, 4)]).shape == (3, 3)
