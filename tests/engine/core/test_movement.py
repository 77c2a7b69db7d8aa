"""Data movement that real networks do: each case once met in one of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.compaction import compact
from engine.coupling import couple
from engine.torchscript.program import Program
from tests.engine.core.programs import halve, scripted, traced

IMAGE = [torch.randn(1, 3, 8, 8)]


def both_forms(model: nn.Module, inputs: list[Tensor]) -> list[Program]:
    return [traced(model, inputs), scripted(model)]


def shape_of(program: Program, name: str) -> tuple[int, ...]:
    return tuple(program.attributes()[name].shape)


class Picture(nn.Module):
    """Convolution, something in between, convolution and head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(torch.relu(self.first(x)))
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


class ReshapedLike(Picture):
    def between(self, x: Tensor) -> Tensor:
        return (x.flatten(2) * 2).reshape_as(x)


class ViewedLike(Picture):
    def between(self, x: Tensor) -> Tensor:
        return (x.flatten(2) * 2).view_as(x)


class ExpandedLike(Picture):
    def between(self, x: Tensor) -> Tensor:
        return x * x.mean((1, 2, 3), keepdim=True).expand_as(x)


class Padded(Picture):
    def between(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 0, 2, -1))


class PaddedChannels(Picture):
    """The shortcut of early residual networks: channels padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(12, 6, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 1, 3))


class Permuted(Picture):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]))

    def between(self, x: Tensor) -> Tensor:
        return x[:, self.order]


class Selected(Permuted):
    def between(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order)


class SelectedTwice(Permuted):
    """Every second channel picked twice, the others never."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.tensor([0, 0, 2, 2, 4, 4, -2, -2])

    def between(self, x: Tensor) -> Tensor:
        return x[:, self.order]


class ScaledBySize(Picture):
    """A factor computed from a size that shrinks keeps its value."""

    def between(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(torch.tensor(x.size(1), dtype=torch.float32) * 3)


class BatchInChannels(Picture):
    """Batch and channels in one dimension: the size is scaled, not fixed to the example's."""

    def between(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows = x.reshape(batch * channels * 2, height // 2, width)
        return (rows * 2).reshape(batch, channels, height, width)


class EmptyPrefix(Picture):
    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :0], torch.tanh(x[:, :, 0:])], dim=2)


@pytest.mark.parametrize(
    "kind",
    [
        ReshapedLike, ViewedLike, ExpandedLike, Padded, PaddedChannels, Permuted, Selected,
        SelectedTwice, ScaledBySize, BatchInChannels, EmptyPrefix,
    ],
)  # fmt: skip
def test_channels_follow(kind: type[Picture]) -> None:
    torch.manual_seed(0)
    for program in both_forms(kind(), IMAGE):
        compacted, certificate, _ = halve(program, IMAGE)
        assert shape_of(compacted, "first.weight")[0] == 4
        assert shape_of(compacted, "second.weight")[0] == 3
        assert certificate.passed
        assert certificate.restricted_error is None or certificate.restricted_error < 1e-12
        assert certificate.batch_sizes == [1, 3]
        for side in (8, 12):
            found = compacted.run([torch.randn(2, 3, side, side)])
            assert found.shape == (2, 5)


def test_unknown_indices_freeze_what_they_pick_from() -> None:
    class Sorted(Picture):
        def between(self, x: Tensor) -> Tensor:
            return x[:, x.mean((0, 2, 3)).argsort()]

    program = traced(Sorted(), IMAGE)
    compacted, certificate, coupling = halve(program, IMAGE)
    assert certificate.passed
    assert shape_of(compacted, "first.weight")[0] == 8
    assert shape_of(compacted, "second.weight")[0] == 3
    reasons = [item.reason for item in coupling.frozen if item.layer == "first"]
    assert any("index" in reason or "argsort" in reason for reason in reasons)


def test_a_renumbered_table_by_hand() -> None:
    """Channels 1, 2, 5 of [3 1 0 2 7 6 5 4] go: what stays is numbered anew, in the old order."""
    program = traced(Selected(), IMAGE)
    coupling = couple(program, IMAGE)
    [first] = [x for x in coupling.slices if x.tensor == "first.weight" and x.dim == 0]
    compacted = compact(program, coupling, first.component[[1, 2, 5]], IMAGE)
    tables = [
        item.tolist()
        for item in compacted.constants().values()
        if item.dtype == torch.int64 and item.dim() == 1
    ]
    # survivors 0 3 4 6 7 become 0 1 2 3 4; the order was 3 (1) 0 (2) 7 6 (5) 4
    assert [1, 0, 4, 3, 2] in tables


class WeightStandardized(nn.Conv2d):
    """Weights normalised over input channels and kernel, through a batch norm (NFNet, BiT)."""

    def forward(self, input: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(input, weight.reshape_as(self.weight), self.bias, padding=1)


def test_merged_dimensions_part_again() -> None:
    """[O, I, k, k] -> [1, O, I k k] -> [O, I, k, k]: both O and I stay prunable."""
    torch.manual_seed(0)
    model = Picture()
    model.second = WeightStandardized(8, 6, 3)
    for program in both_forms(model, IMAGE):
        compacted, certificate, _ = halve(program, IMAGE)
        assert shape_of(compacted, "first.weight") == (4, 3, 3, 3)
        assert shape_of(compacted, "second.weight") == (3, 4, 3, 3)
        assert certificate.passed
        assert certificate.kind == "approximate"
        assert certificate.restricted_error is not None
        assert certificate.restricted_error < 1e-12
        assert any("batch_norm" in name for name in certificate.mixed_by)


def test_a_kernel_of_one_lets_other_dimensions_pass() -> None:
    class Aggregate(nn.Module):
        """Tokens mixed by a Conv1d over dimension 1; channels are its positions."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 8)
            self.mix = nn.Conv1d(3, 2, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(torch.relu(self.embed(x)))).sum(1)

    inputs = [torch.randn(2, 3, 5)]
    for program in both_forms(Aggregate(), inputs):
        compacted, certificate, _ = halve(program, inputs)
        assert certificate.passed
        assert certificate.restricted_error is not None
        assert certificate.restricted_error < 1e-12
        assert shape_of(compacted, "embed.weight") == (4, 5)
        assert shape_of(compacted, "head.weight") == (4, 4)


def test_a_made_tensor_follows_the_channels_it_meets() -> None:
    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 8)
            self.back = nn.Linear(8, 8)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(x.size(0), 8)
            for _ in range(3):
                state = torch.tanh(self.embed(x) + self.back(state))
            return self.head(state)

    inputs = [torch.randn(2, 5)]
    for program in both_forms(Started(), inputs):
        compacted, certificate, _ = halve(program, inputs)
        assert certificate.kind == "exact"
        assert certificate.passed
        assert shape_of(compacted, "back.weight") == (4, 4)
        assert compacted.run([torch.randn(7, 5)]).shape == (7, 4)


def test_what_made_tensors_share_is_no_channel() -> None:
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 8)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            bias = (torch.zeros(6, 3) + torch.ones(6, 3)).sum()
            return self.head(torch.relu(self.embed(x))) + bias

    _, certificate, coupling = halve(traced(Noise(), [torch.randn(2, 5)]), [torch.randn(2, 5)])
    assert certificate.passed
    assert coupling.component_count == 8
