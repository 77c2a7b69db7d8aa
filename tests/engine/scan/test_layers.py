"""What a scan prunes, one layer at a time, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from secateur.recipe import ScoreStage
from torch import Tensor, nn

from engine.coupling import couple
from engine.masks import maskable
from engine.scan.layers import channel_layers, forward_of, weight_layers
from engine.scan.measuring import Judge
from tests.engine.core.programs import scripted, traced

FEED = [torch.tensor([[1.0], [5.0]])]


def four_channels(kind=nn.Linear):
    """x (3 + 1 + 4 + 2) = 10 x: without the lowest one, two and three channels 9, 7 and 4."""
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0], [1.0], [4.0], [2.0]]))
        model[1].weight.fill_(1.0)
    return model


def drifts(program, layers, ratios, inputs=FEED):
    judge = Judge(forward_of(program), inputs, quantity="drift")
    return {
        layer.name: [judge.measure(layer.without(layer.count(r))).drift for r in ratios]
        for layer in layers
    }


def bits(program):
    return {name: tensor.detach().clone() for name, tensor in program.attributes().items()}


def same_bits(program, kept):
    now = program.attributes()
    assert now.keys() == kept.keys()
    return all(
        torch.equal(now[name].view(torch.uint8), kept[name].view(torch.uint8)) for name in kept
    )


def channels(program, inputs=FEED):
    coupling = couple(program, list(inputs))
    weight = program.parameters()["0.weight"].detach().double()
    scores = np.full(coupling.component_count, np.nan)
    (group,) = coupling.groups
    scores[group.components] = weight.abs().sum(1).numpy()
    return channel_layers(program, coupling, scores)


def test_channels_go_lowest_first_and_come_back():
    program = scripted(four_channels())
    before = bits(program)
    (layer,) = channels(program)
    assert (layer.name, layer.members, layer.units, layer.removable) == ("0", ["0"], 4, 3)
    assert layer.scores.tolist() == [3.0, 1.0, 4.0, 2.0]
    found = drifts(program, [layer], [0.25, 0.5, 0.75])
    assert found == {"0": pytest.approx([0.1, 0.3, 0.6], rel=1e-6)}
    # The other way round gives the same: nothing of one point is left in the next.
    assert drifts(program, [layer], [0.75, 0.5, 0.25])["0"] == found["0"][::-1]
    assert same_bits(program, before)


def test_what_must_stay_stays_and_one_is_left():
    program = scripted(four_channels())
    coupling = couple(program, FEED)
    (layer,) = channel_layers(program, coupling, np.array([3.0, np.nan, 4.0, np.nan]))
    assert layer.removable == 2
    assert [layer.count(ratio) for ratio in (0.1, 0.25, 0.5, 0.9)] == [0, 1, 2, 2]
    # 3 and 4 of 10 go, never the unjudged 1 and 2.
    assert drifts(program, [layer], [0.25, 0.9])["0"] == pytest.approx([0.3, 0.7], rel=1e-6)
    (all_but_one,) = channels(program)
    assert all_but_one.count(0.99) == 3


def test_weights_go_lowest_first_in_every_layer():
    program = scripted(four_channels())
    before = bits(program)
    weights = maskable(program, [])
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    scores["1.weight"] = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    found = drifts(program, weight_layers(program, weights, scores), [0.25, 0.5])
    # The second layer gives up what reads channels 0 and 1: 3, then 3 + 1 of 10.
    assert found == {
        "0.weight": pytest.approx([0.1, 0.3], rel=1e-6),
        "1.weight": pytest.approx([0.3, 0.4], rel=1e-6),
    }
    assert same_bits(program, before)


class Tied(nn.Module):
    """One weight under two names, applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(2, 2, bias=False)
        self.back = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.there.weight.copy_(torch.tensor([[2.0, 3.0], [0.0, 1.0]]))
        self.back.weight = self.there.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.there(x))


def test_a_tied_weight_is_masked_under_every_name():
    # Without the 3 under both names (1, 1) -> (2, 1) -> (4, 1). Under the first name alone it
    # would be (7, 1), under the second (10, 1).
    program = scripted(Tied().eval())
    weights = maskable(program, [])
    (name,) = weights
    (layer,) = weight_layers(program, weights, {name: torch.tensor([[1.0, 0.0], [2.0, 3.0]])})
    assert layer.without(1)([torch.ones(1, 2)]).tolist() == [[4.0, 1.0]]


class Counts(nn.Module):
    """Writes to a buffer whenever it runs, and returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 4)
        self.head = nn.Linear(4, 1)
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.runs.add_(1)
        return self.head(self.layer(x)), self.runs.clone()


def test_what_a_run_writes_is_lost():
    program = scripted(Counts().eval())
    before = bits(program)
    weights = maskable(program, [])
    layers = weight_layers(program, weights, {n: w.detach().abs() for n, w in weights.items()})
    for layer in layers:
        assert layer.without(1)(FEED)[1].tolist() == [1.0]
        assert layer.without(2)(FEED)[1].tolist() == [1.0]
    assert same_bits(program, before)
    assert program.attributes()["runs"].tolist() == [0.0]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_normalised_weight_is_run_step_by_step():
    # g v / |v| of a zeroed filter is zero over zero; the masked model has zero there.
    model = four_channels()
    model[0] = nn.utils.weight_norm(model[0])
    program = traced(model, FEED)
    coupling = couple(program, FEED)
    (group,) = coupling.groups
    scores = np.full(coupling.component_count, np.nan)
    scores[group.components] = [3.0, 1.0, 4.0, 2.0]
    layers = channel_layers(program, coupling, scores)
    found = drifts(program, layers, [0.25, 0.5, 0.75])
    assert list(found.values()) == [pytest.approx([0.1, 0.3, 0.6], rel=1e-5)]


def test_ratios_are_counted_as_they_are_written():
    program = scripted(four_channels())
    (layer,) = channels(program)
    stage = ScoreStage(stage="score")
    assert [layer.count(ratio) for ratio in stage.ratios] == [0, 1, 2, 3, 3]
