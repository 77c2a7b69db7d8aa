"""Programs that cannot be certified."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from engine.coupling import couple
from engine.errors import UnsupportedOperator
from tests.engine.core.programs import halve, uploaded


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).mean((2, 3)))


def test_quantized_operators_are_refused_by_name_of_the_fault() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantization of torch announces its successor
        model = torch.ao.quantization.quantize_dynamic(Convolution().eval(), {nn.Linear})
        program = uploaded(torch.jit.script(model))
    image = [torch.randn(1, 3, 8, 8)]
    assert couple(program, image).component_count > 0
    with pytest.raises(UnsupportedOperator, match="needs the program in float64") as caught:
        halve(program, image)
    assert caught.value.where == "certificate"
    assert "before quantization" in caught.value.hint
