"""Values put at places (graph networks), extrema over channels, and what data does not decide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.coupling import couple
from tests.engine.core.programs import group_sizes, halve, parameter_count, scripted, traced

NODES, EDGES = torch.randn(7, 6), torch.randint(0, 7, (2, 12))


class MessagePassing(nn.Module):
    """Gated graph network: messages along edges, summed where they arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.message = nn.Linear(6, 16), nn.Linear(32, 16)
        self.update, self.out = nn.GRUCell(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = self.embed(x).relu()
        for _ in range(2):
            ends = torch.cat([h[edges[0]], h[edges[1]]], -1)
            arrived = torch.zeros_like(h).index_add(0, edges[1], self.message(ends).relu())
            h = self.update(arrived, h)
        return self.out(h)


class Written(nn.Module):
    """Rows written into a table by index_put and index_copy."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        table = torch.zeros_like(self.a(x))
        table = table.index_put((edges[0],), self.a(x)[edges[1]].relu(), accumulate=True)
        return self.c(table.index_copy(0, edges[0, :1], self.b(x)[:1]))


class SpatialAttention(nn.Module):
    """The mean and the maximum over channels weigh every pixel (CBAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.out = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(2, 1, 3, padding=1),
            nn.Linear(8, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        told = torch.cat([h.mean(1, keepdim=True), h.max(1, keepdim=True)[0]], 1)
        return self.out((h * self.c(told).sigmoid()).mean([2, 3]))


class Winner(nn.Module):
    """Which channel is largest is part of the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x).relu()
        return self.c(h), h.max(1)[1]


class Stem(nn.Module):
    """Tokens, and how many rows they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        h = self.conv(x)
        return h.flatten(2).transpose(1, 2), h.shape[2]


class Positions(nn.Module):
    """Positions are counted from the rows; heads are cut by a number computed from the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.out = Stem(), nn.Linear(16, 48), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, rows = self.stem(x)
        h = h + torch.arange(rows * rows).view(1, -1, 1)
        b, n, c = h.shape
        q, k, v = self.qkv(h).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1)).mean(1)


FORMS = pytest.mark.parametrize("form", ["scripted", "traced"])


def program_of(model: nn.Module, inputs: tuple[Tensor, ...], form: str):
    return scripted(model.eval()) if form == "scripted" else traced(model.eval(), inputs)


@FORMS
def test_messages_that_are_summed_where_they_arrive(form):
    # Scripted, GRUCell asks how many dimensions h has. Its rows are picked by data, its
    # dimensions are not.
    program = program_of(MessagePassing(), (NODES, EDGES), form)
    compacted, certificate, coupling = halve(program, (NODES, EDGES))
    assert group_sizes(coupling) == {"embed": 16}
    assert certificate.passed
    assert certificate.kind == "exact"
    # embed 6x8+8, message 16x8+8, update 2x(24x8+24), out 8x3+3
    assert parameter_count(compacted) == 56 + 136 + 432 + 27


@FORMS
def test_rows_put_into_a_table(form):
    program = program_of(Written(), (NODES, EDGES), form)
    compacted, certificate, coupling = halve(program, (NODES, EDGES))
    assert group_sizes(coupling) == {"a": 8}
    assert certificate.passed
    assert parameter_count(compacted) == 2 * (6 * 4 + 4) + (4 * 2 + 2)


@FORMS
def test_maxima_over_channels_mix_them(form):
    image = torch.randn(2, 3, 8, 8)
    program = program_of(SpatialAttention(), (image,), form)
    _, certificate, coupling = halve(program, (image,))
    assert group_sizes(coupling) == {"a": 8}
    assert certificate.passed
    assert certificate.kind == "approximate"
    assert any("aten::max" in name for name in certificate.mixed_by)
    assert certificate.restricted_error is not None
    assert certificate.restricted_error < 1e-12


@FORMS
def test_the_place_of_a_maximum_is_no_statistic(form):
    image = torch.randn(2, 3, 8, 8)
    coupling = couple(program_of(Winner(), (image,), form), (image,))
    assert not coupling.groups
    assert ("a", "aten::max") in {(item.layer, item.op) for item in coupling.frozen}


@FORMS
def test_a_size_beside_a_tensor_in_a_tuple_is_not_data(form):
    image = torch.randn(2, 3, 8, 8)
    program = program_of(Positions(), (image,), form)
    compacted, certificate, coupling = halve(program, (image,))
    assert group_sizes(coupling) == {"stem.conv": 16, "qkv": 4}
    assert certificate.passed
    # stem 12x8+8, qkv 8x24+24, out 8x4+4
    assert parameter_count(compacted) == 104 + 216 + 36
    larger = torch.randn(1, 3, 12, 12)
    assert compacted.run([larger]).shape == (1, 4)
