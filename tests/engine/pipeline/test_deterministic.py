"""A job that asks for kernels with one order gets them, or an error that names the operator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.deterministic import choose_kernels
from engine.errors import UnsupportedOperator
from engine.pipeline.setup import prepare
from tests.engine.digits import save_scripted
from tests.engine.pipeline.conftest import prune


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    choose_kernels(deterministic=False)


class Putting(nn.Module):
    """`put_` writes in no order where an index comes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y.clone().put_(torch.tensor([0, 0]), torch.ones(2))


def recipe(**changes):
    return {"inputs": [{"shape": [2, 4]}], "stages": [prune()]} | changes


def test_the_recipe_decides_for_its_own_job(make_job, tmp_path):
    model: Path = save_scripted(nn.Sequential(nn.Linear(4, 4)).eval(), tmp_path / "net.pt")
    prepare(make_job(model, recipe(deterministic=True)))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    prepare(make_job(model, recipe()))
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


def test_an_operator_without_such_a_kernel_is_named(make_job, tmp_path):
    model = save_scripted(Putting().eval(), tmp_path / "putting.pt")
    prepare(make_job(model, recipe()))
    with pytest.raises(UnsupportedOperator, match=r"no deterministic kernel: put_") as caught:
        prepare(make_job(model, recipe(deterministic=True)))
    assert "leave `deterministic` out" in caught.value.hint
