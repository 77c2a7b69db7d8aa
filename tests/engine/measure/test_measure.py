from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from secateur.report import Histogram
from torch import Tensor, nn

from engine.errors import InputsDoNotFit
from engine.measure import latency
from engine.measure.latency import compare_latency
from engine.measure.macs import count_macs, count_nonzero_macs
from engine.measure.size import (
    histogram,
    layer_reports,
    nonzero_count,
    parameter_count,
    weight_range,
    weights_of,
)
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted
from tests.zoo import build, example_inputs


def load(path, module):
    return Program.load(save_scripted(module.eval(), path))


class ConvThenLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).mean(dim=(2, 3)))


def test_macs_by_hand(tmp_path):
    # conv: 8 x 8 outputs, 8 filters of 3 x 3 x 3; linear: 8 x 5
    program = load(tmp_path / "m.pt", ConvThenLinear())
    expected = 8 * 8 * 8 * 27 + 8 * 5
    assert count_macs(program, (torch.zeros(1, 3, 16, 16),)) == expected
    assert count_macs(program, (torch.zeros(6, 3, 16, 16),)) == expected


class Product(nn.Module):
    """A product with a transposed weight, added to zeros, and one of activations alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 4))
        self.added = nn.Parameter(torch.zeros(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.added, x, self.weight.t())
        return torch.matmul(y.t(), y)


def test_macs_without_zeros_by_hand(tmp_path):
    model = ConvThenLinear()
    with torch.no_grad():
        model.conv.weight[0] = 0  # 27 of 216
        model.conv.weight[1, 0, 0] = 0  # and 3
        model.linear.weight.fill_(1.0)
        model.linear.weight[0, :4] = 0  # 4 of 40
    program = load(tmp_path / "m.pt", model)
    for batch in (1, 6):
        image = (torch.zeros(batch, 3, 16, 16),)
        assert count_nonzero_macs(program, image) == 8 * 8 * (216 - 30) + (40 - 4)
        assert count_macs(program, image) == 8 * 8 * 216 + 40

    product = Product()
    with torch.no_grad():
        product.weight[:3] = 0
    program = load(tmp_path / "p.pt", product)
    assert count_nonzero_macs(program, (torch.zeros(1, 4),)) == 3 * 4 + 6 * 6
    assert count_macs(program, (torch.zeros(1, 4),)) == 6 * 4 + 6 * 6


def test_macs_without_zeros_of_a_fixed_batch_and_of_what_meta_cannot_run(tmp_path):
    fixed = load(tmp_path / "f.pt", FixedBatch())
    with torch.no_grad():
        fixed.parameters()["linear.weight"].fill_(1.0)[0] = 0
    assert count_nonzero_macs(fixed, (torch.zeros(2, 4),)) == 8
    deciding = load(tmp_path / "d.pt", Deciding())
    assert count_nonzero_macs(deciding, (torch.ones(1, 4),)) is None


class Counts(nn.Module):
    """Writes to a number and reads it again: the second layer runs in the second half only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 6)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            self.calls.add_(1)
            x = self.first(x)
            if int(self.calls) > 2:
                x = x + self.second(x)[:, :4]
        return x


def test_macs_follow_numbers_the_program_writes(tmp_path):
    program = load(tmp_path / "m.pt", Counts())
    assert count_macs(program, (torch.zeros(1, 4),)) == 4 * 16 + 2 * 24
    assert int(program.attributes()["calls"]) == 0


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def test_macs_of_fused_kernels_by_hand(tmp_path):
    # attention: q k^T and (weights) v, each heads x length x length x width
    attention = load(tmp_path / "a.pt", Attention())
    assert count_macs(attention, (torch.zeros(1, 2, 7, 4),)) == 2 * (2 * 7 * 7 * 4)
    # LSTM: 4 gates of 6, from 4 inputs and 6 states, over 5 steps
    lstm = load(tmp_path / "l.pt", Recurrent())
    assert count_macs(lstm, (torch.zeros(5, 1, 4),)) * 5 == 4 * 6 * (4 + 6) * 5


def test_macs_of_lenet(tmp_path):
    program = load(tmp_path / "m.pt", build("lenet5"))
    conv = 20 * 24 * 24 * 25 + 50 * 8 * 8 * 20 * 25
    assert count_macs(program, example_inputs("lenet5")) == (conv + 800 * 120 + 120 * 84 + 84 * 10)


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(2, 4))


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(4, 3), nn.Linear(4, 30)

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return self.large(x)
        return self.small(x)


def test_macs_of_control_flow_that_needs_values(tmp_path):
    program = load(tmp_path / "m.pt", Deciding())
    assert count_macs(program, (torch.ones(1, 4),)) == 4 * 30
    assert count_macs(program, (-torch.ones(1, 4),)) == 4 * 3


def test_macs_of_a_fixed_batch_are_shared_out(tmp_path):
    program = load(tmp_path / "m.pt", FixedBatch())
    assert count_macs(program, (torch.zeros(2, 4),)) == 12


def test_macs_of_inputs_that_do_not_fit(tmp_path):
    program = load(tmp_path / "m.pt", nn.Linear(4, 3))
    with pytest.raises(InputsDoNotFit):
        count_macs(program, (torch.zeros(1, 5),))


def test_latency_takes_turns_and_counts_its_runs(tmp_path):
    big = load(tmp_path / "b.pt", nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)]))
    small = load(tmp_path / "s.pt", nn.Sequential(nn.Linear(256, 8), nn.Linear(8, 256)))
    got = compare_latency(big, small, (torch.zeros(1, 256),), batch_sizes=[1, 32], runs=7)
    assert [(item.batch_size, item.runs) for item in got.original] == [(1, 7), (32, 7)]
    assert got.warnings == []
    for dense, compact in zip(got.original, got.compact, strict=True):
        assert 0 < dense.p50 <= dense.p90 <= dense.p99
        assert compact.p50 < dense.p50


def test_latency_order_alternates(tmp_path, monkeypatch):
    program = load(tmp_path / "b.pt", nn.Linear(2, 2))
    seen = []
    timed = latency._timed

    def recorded(module, batch):
        seen.append(id(module))
        return timed(module, batch)

    monkeypatch.setattr(latency, "_timed", recorded)
    compare_latency(program, program.twin(), (torch.zeros(1, 2),), batch_sizes=[1], runs=5)
    first, second = seen[:2]
    assert seen[8:] == [first, second, second, first, first, second, second, first, first, second]


def test_latency_at_the_own_batch_size_when_others_are_refused(tmp_path):
    program = load(tmp_path / "m.pt", FixedBatch())
    got = compare_latency(program, program, (torch.zeros(2, 4),), batch_sizes=[1, 32], runs=5)
    assert [item.batch_size for item in got.original] == [2]
    assert len(got.warnings) == 2
    assert "batch size 1 could not be measured" in got.warnings[0]


def test_latency_stops_at_its_budget_and_says_how_many(tmp_path):
    program = load(tmp_path / "m.pt", nn.Linear(4, 4))
    got = compare_latency(
        program, program, (torch.zeros(1, 4),), batch_sizes=[1], runs=1000, seconds=0.0
    )
    assert got.original[0].runs == 5


def test_counts_and_histogram_by_hand():
    weights = {"a": torch.tensor([[0.0, 1.0], [-1.0, 0.5]]), "bias": torch.tensor([100.0])}
    assert parameter_count(weights) == 5
    assert nonzero_count(weights) == 4
    assert weight_range(weights) == (-1.0, 1.0)
    bars = histogram(weights, (-1.0, 1.0))
    assert isinstance(bars, Histogram)
    expected, edges = np.histogram([0.0, 1.0, -1.0, 0.5], bins=64, range=(-1, 1))
    assert bars.counts == expected.tolist()
    np.testing.assert_allclose(bars.edges, edges)


def test_histogram_of_equal_weights_and_of_none():
    bars = histogram({"a": torch.full((2, 3), 2.0)}, (2.0, 2.0))
    assert sum(bars.counts) == 6
    assert sum(histogram({}, weight_range({})).counts) == 0


def test_layer_reports_by_hand():
    before = {"a.weight": torch.ones(4, 5), "a.bias": torch.ones(4)}
    after = {"a.weight": torch.eye(2, 5), "a.bias": torch.ones(2)}
    (report,) = layer_reports(before, after)
    assert report.shape_before == [4, 5]
    assert report.shape_after == [2, 5]
    assert report.nonzero_after == 2
    assert report.removed_fraction == pytest.approx(0.9)


def test_frozen_export_counts_its_weights(tmp_path):
    model = build("lenet5_digits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.script(model))
        torch.jit.save(frozen, tmp_path / "f.pt")
    program = Program.load(tmp_path / "f.pt")
    assert parameter_count(weights_of(program)) == sum(p.numel() for p in model.parameters())
