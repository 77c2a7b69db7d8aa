"""Fresh weights follow the role each tensor plays, as torch.nn would draw them."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from engine.lottery.initialisation import reinitialise
from engine.lottery.rewinding import snapshot
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted


class Roles(nn.Module):
    """One tensor of every role."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16, padding_idx=3)
        self.position = nn.Parameter(torch.full((9, 16), 4.0))
        self.conv = nn.Conv1d(16, 32, 5, groups=2)
        self.norm = nn.BatchNorm1d(32)
        self.act = nn.PReLU()
        self.rows = nn.LSTM(32, 25, batch_first=True, bidirectional=True)
        self.layer_norm = nn.LayerNorm(50)
        self.plain = nn.Parameter(torch.randn(50, 64))
        self.shift = nn.Parameter(torch.randn(64))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = (self.words(x) + self.position).transpose(1, 2)
        y = self.act(self.norm(self.conv(y))).transpose(1, 2)
        y, _ = self.rows(y)
        y = self.layer_norm(y).mean(1)
        return self.head(torch.matmul(y, self.plain) + self.shift)


@pytest.fixture
def program(tmp_path):
    program = Program.load(save_scripted(Roles().eval(), tmp_path / "roles.pt"))
    with torch.no_grad():
        for tensor in program.attributes().values():
            tensor.add_(7)  # trained: nothing is as it was at the start
    return program


INPUTS = (torch.arange(18).reshape(2, 9),)
BOUNDS = {
    "conv.weight": 1 / sqrt(8 * 5),
    "conv.bias": 1 / sqrt(8 * 5),
    "rows.weight_ih_l0": 1 / sqrt(25),
    "rows.weight_hh_l0_reverse": 1 / sqrt(25),
    "rows.bias_hh_l0": 1 / sqrt(25),
    "plain": 1 / sqrt(50),
    "shift": 1 / sqrt(50),
    "head.weight": 1 / sqrt(64),
    "head.bias": 1 / sqrt(64),
}


def test_every_role(program):
    before = snapshot(program)
    fresh = reinitialise(program, INPUTS, seed=1)
    found = fresh.program.attributes()
    for name, bound in BOUNDS.items():
        largest = float(found[name].detach().abs().max())
        assert bound * 0.7 < largest <= bound, name
    for name, value in {
        "norm.weight": 1.0, "norm.bias": 0.0, "norm.running_mean": 0.0, "norm.running_var": 1.0,
        "norm.num_batches_tracked": 0, "layer_norm.weight": 1.0, "layer_norm.bias": 0.0,
        "act.weight": 0.25,
    }.items():  # fmt: skip
        assert bool((found[name] == value).all()), name
    words = found["words.weight"].detach()
    assert words[3].abs().sum() == 0
    assert words.std() == pytest.approx(1.0, abs=0.1)
    assert words.mean() == pytest.approx(0.0, abs=0.1)
    # Added to an activation: its role could be any, so it keeps its spread, and is named.
    assert fresh.by_distribution == ["position"]
    assert found["position"].detach().mean() == pytest.approx(11.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in snapshot(program).items())


def test_seeds(program):
    one, same, other = (
        reinitialise(program, INPUTS, seed=seed).program.parameters() for seed in (1, 1, 2)
    )
    assert torch.equal(one["head.weight"], same["head.weight"])
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert not torch.equal(one["rows.weight_hh_l0"], one["rows.weight_hh_l0_reverse"])


def test_as_torch_draws_transposed_and_bilinear_layers(tmp_path):
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(6, 30, 3)
            self.pair = nn.Bilinear(20, 5, 40)

        def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return self.up(x).mean((2, 3)).sum() + self.pair(a, b)

    program = Program.load(save_scripted(Both().eval(), tmp_path / "both.pt"))
    inputs = (torch.rand(2, 6, 4, 4), torch.rand(2, 20), torch.rand(2, 5))
    found = reinitialise(program, inputs, seed=0).program.parameters()
    like = Both()
    for name, tensor in found.items():
        drawn = dict(like.named_parameters())[name]
        assert tensor.abs().max() == pytest.approx(float(drawn.detach().abs().max()), rel=0.1)
