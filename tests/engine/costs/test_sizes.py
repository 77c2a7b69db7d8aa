"""Parameters and bytes of a removal from shapes: by hand, and of the model that is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine.calling import copies
from engine.compaction import compact
from engine.costs.exact import cost_of
from engine.costs.sizes import BytesBySelection, ParametersBySelection
from engine.coupling import couple
from engine.measure.size import memory_bytes
from tests import zoo
from tests.engine.core.programs import half, scripted, uploaded


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)
        self.register_buffer("unused", torch.zeros(7, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.first(x))).mean((2, 3)))


def test_by_hand() -> None:
    program = scripted(Net().eval())
    coupling = couple(program, (torch.randn(2, 3, 5, 5),))
    removed = coupling.groups[0].components[:3]
    parameters = ParametersBySelection(coupling, program)
    # A channel is 27 weights and a bias, a scale and a shift, and 10 weights of the head.
    assert parameters.after(np.empty(0, np.int64)) == 8 * (28 + 2 + 10) + 10
    assert parameters.after(removed) == 5 * (28 + 2 + 10) + 10
    # Mean and variance go with it; the unused doubles and the count of batches stay.
    size = BytesBySelection(coupling, program, 5000)
    assert size.after(np.empty(0, np.int64)) == 5000
    assert size.after(removed) == 5000 - 3 * (28 + 4 + 10) * 4


@pytest.mark.parametrize("name", ["lenet5", "bert_encoder"])
def test_as_the_model_that_is_cut_has_them(name: str, tmp_path) -> None:
    program, inputs = uploaded(zoo.scripted(name)), zoo.example_inputs(name)
    coupling = couple(program, copies(inputs))
    removed = half(coupling, seed=3)
    smaller = compact(program, coupling, removed, copies(inputs))
    exact = cost_of("params", smaller, inputs, tmp_path)
    assert ParametersBySelection(coupling, program).after(removed) == exact
    size = BytesBySelection(coupling, program, memory_bytes(program))
    assert size.after(removed) == memory_bytes(smaller)
