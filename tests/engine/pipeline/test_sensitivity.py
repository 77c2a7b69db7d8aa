from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine.coupling import couple
from engine.pipeline.sensitivity import drift, scan_channels
from tests.engine.core.programs import scripted


def test_drift_is_the_change_over_the_size_of_the_outputs():
    # (3, 4) has length 5; it moves by (0, 1) to a drift of 1/5.
    assert drift(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])) == pytest.approx(0.2)
    assert drift(torch.tensor([1.0]), torch.tensor([float("nan")])) == float("inf")


def test_the_scan_sets_the_lowest_channels_of_one_layer_to_zero():
    # Four channels that add up at one output: x (1 + 2 + 3 + 4) = 10 x. Without the lowest one,
    # two and three it is 9, 7 and 4: drifts of 1, 3 and 6 tenths.
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0], [1.0], [4.0], [2.0]]))
        model[1].weight.fill_(1.0)
    program = scripted(model)
    inputs = [torch.tensor([[1.0], [5.0]])]
    coupling = couple(program, inputs)
    scores = program.parameters()["0.weight"].detach().double().numpy()[:, 0]
    found = scan_channels(program, coupling, np.asarray(scores), inputs)
    assert found == {"0": pytest.approx([0.1, 0.3, 0.6])}
    assert program.parameters()["0.weight"].flatten().tolist() == [3.0, 1.0, 4.0, 2.0]
