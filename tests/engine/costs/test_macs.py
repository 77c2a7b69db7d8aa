"""MACs of a removal from shapes: by hand, and as torch counts them on the model that is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.calling import copies
from engine.compaction import compact
from engine.costs.macs import MacsBySelection
from engine.coupling import Coupling, couple
from engine.measure.macs import count_macs
from tests import zoo
from tests.engine.core.programs import half, scripted, traced, uploaded


def of_layer(coupling: Coupling, layer: str, count: int) -> np.ndarray:
    [group] = [group for group in coupling.groups if group.name == layer]
    return group.components[:count]


def test_convolutions_and_a_product_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.second = nn.Conv2d(8, 6, 1)
            self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
            self.head = nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.depthwise(torch.relu(self.first(x))))
            x = torch.relu(self.up(torch.relu(self.second(x))))
            return self.head(x.mean((2, 3)))

    image = (torch.randn(2, 3, 4, 4),)
    coupling = couple(scripted(Net()), image)
    # 16 positions; the transposed one reads 16 and writes 64.
    whole = 16 * (8 * 27 + 8 * 9 + 6 * 8) + 16 * 6 * 4 * 4 + 10 * 4
    assert whole == 6952
    costs = MacsBySelection(coupling, whole)
    assert costs.after(np.empty(0, np.int64)) == whole
    removed = np.concatenate([of_layer(coupling, "first", 3), of_layer(coupling, "second", 2)])
    smaller = 16 * (5 * 27 + 5 * 9 + 4 * 5) + 16 * 4 * 4 * 4 + 10 * 4
    assert costs.after(removed) == pytest.approx(smaller, rel=1e-12)
    removed = of_layer(coupling, "up", 1)
    assert costs.after(removed) == pytest.approx(whole - 16 * 6 * 4 - 10, rel=1e-12)


def test_attention_by_hand() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))
            self.out = nn.Linear(8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                layer(x).view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
            y = functional.scaled_dot_product_attention(q, k, v)
            return self.out(y.transpose(1, 2).flatten(2))

    x = (torch.randn(1, 5, 6),)
    coupling = couple(traced(Attention(), x), x, granularity="head")
    # 5 tokens; 2 heads of 4 numbers, each 5 x 5 scores and 5 x 5 weighted sums.
    whole = 5 * 6 * 8 * 4 + 2 * 5 * 5 * 4 * 2
    one_head = 5 * 6 * 4 * 4 + 1 * 5 * 5 * 4 * 2
    assert (whole, one_head) == (1360, 680)
    [group] = coupling.groups
    costs = MacsBySelection(coupling, whole)
    assert costs.after(group.components[:1]) == pytest.approx(one_head, rel=1e-12)


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "mobilenet_v2", "bert_encoder"])
def test_as_counted_on_the_model_that_is_cut(name: str) -> None:
    program, inputs = uploaded(zoo.scripted(name)), zoo.example_inputs(name)
    coupling = couple(program, copies(inputs))
    costs = MacsBySelection(coupling, count_macs(program, inputs))
    removed = half(coupling, seed=3)
    exact = count_macs(compact(program, coupling, removed, copies(inputs)), inputs)
    assert round(costs.after(removed)) == exact


def test_kinds_that_are_not_known() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.LSTM(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cells(x)[0]

    x = (torch.randn(3, 2, 4),)
    costs = MacsBySelection(couple(scripted(Recurrent()), x), 720)
    assert not costs.known
    assert costs.after(np.empty(0, np.int64)) == 720
