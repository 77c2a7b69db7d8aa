from __future__ import annotations

import pytest
import torch
from secateur.recipe import Penalty
from torch import Tensor, nn

from engine.errors import TrainingRuleUnmet
from engine.torchscript.program import Program
from engine.training.finetune import finetune
from engine.training.penalty import add_penalty, norm_scales
from tests.engine.training.test_finetune import (
    InPlace,
    Observer,
    make_program,
    options,
    run_of,
)


def parameters():
    made = {
        "w": nn.Parameter(torch.tensor([[2.0, -3.0, 0.0]])),
        "bias": nn.Parameter(torch.tensor([5.0])),
        "gamma": nn.Parameter(torch.tensor([-0.5, 0.0, 4.0])),
    }
    for parameter in made.values():
        parameter.grad = torch.full_like(parameter, 10.0)
    return made


def gradients(**penalty):
    made = parameters()
    add_penalty(made, Penalty(**penalty), ["gamma"])
    return {name: parameter.grad.reshape(-1).tolist() for name, parameter in made.items()}


def test_gradients_by_hand():
    # l1: 10 + 0.5 sign(w); l2: 10 + 0.5 w; bn_scale: 10 + 0.5 sign(g). Biases are spared.
    untouched = {"w": [10, 10, 10], "bias": [10], "gamma": [10, 10, 10]}
    assert gradients(l1=0.5) == untouched | {"w": [10.5, 9.5, 10]}
    assert gradients(l2=0.5) == untouched | {"w": [11, 8.5, 10]}
    assert gradients(bn_scale=0.5) == untouched | {"gamma": [9.5, 10, 10.5]}
    assert gradients(l1=1, l2=1, bn_scale=1) == {
        "w": [13, 6, 10],
        "bias": [10],
        "gamma": [9, 10, 11],
    }


def test_parameters_without_gradient_stay_without():
    made = parameters()
    made["w"].grad = None
    add_penalty(made, Penalty(l1=1), [])
    assert made["w"].grad is None


class TwoNorms(nn.Module):
    """Two BatchNorms, one without scales, and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.first = nn.BatchNorm2d(4)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.other = nn.LayerNorm(4 * 36)
        self.linear = nn.Linear(4 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.plain(self.first(self.conv(x))))
        return self.linear(self.other(x.flatten(1)))


@pytest.mark.parametrize("traced", [False, True])
def test_scales_are_found_in_the_graph(tmp_path, traced):
    program = make_program(tmp_path / "m.pt", TwoNorms(), traced=traced)
    assert norm_scales(program) == ["first.weight"]


def test_scales_of_a_frozen_upload(tmp_path):
    module = torch.jit.freeze(torch.jit.script(TwoNorms().eval()), optimize_numerics=False)
    torch.jit.save(module, tmp_path / "m.pt")
    program = Program.load(tmp_path / "m.pt")
    scales = norm_scales(program)
    assert len(scales) == 1
    assert program.parameters()[scales[0]].shape == (4,)


def test_slimming_shrinks_scales_and_weights_by_l1(tmp_path):
    program = make_program(tmp_path / "m.pt", TwoNorms())

    def trained(penalty):
        run = run_of(options(keep="last", penalty=penalty))
        result = finetune(program, run, Observer()).parameters()
        return {name: float(weight.detach().abs().mean()) for name, weight in result.items()}

    without, slim, sparse = trained(None), trained({"bn_scale": 0.5}), trained({"l1": 0.05})
    assert slim["first.weight"] < 0.5 * without["first.weight"]
    assert slim["other.weight"] > 0.9 * without["other.weight"]
    assert sparse["linear.weight"] < 0.5 * without["linear.weight"]


def test_scales_without_batch_norm_are_refused(tmp_path):
    program = make_program(tmp_path / "m.pt", InPlace())
    with pytest.raises(TrainingRuleUnmet, match="the model has none") as caught:
        finetune(program, run_of(options(penalty={"bn_scale": 1e-4})), Observer())
    assert caught.value.where == "recipe.stages.0.penalty.bn_scale"
