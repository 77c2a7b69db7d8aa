from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from secateur.recipe import PruneStage
from torch import nn

from engine.errors import NothingPruned, PatternMatchesNothing
from engine.masks import apply_masks, prune_elements, save_masks
from engine.torchscript.program import Program
from engine.training.bit_masks import BitMasks
from tests.engine.digits import save_scripted


def stage(**changes):
    return PruneStage.model_validate(
        {"stage": "prune", "granularity": "element", "normalize": "none"}
        | {"allocation": {"amount": 0.5}}
        | changes
    )


@pytest.fixture
def program(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, 1.0], [-3.0, 2.0]]))
        model[0].bias.copy_(torch.tensor([0.001, 0.001]))
        model[2].weight.copy_(torch.tensor([[40.0, 10.0], [-30.0, 20.0]]))
    return Program.load(save_scripted(model, tmp_path / "m.pt"))


def test_local_half_by_magnitude_and_biases_stay(program):
    masks, removed = prune_elements(program, {}, stage(), seed=0)
    assert removed == 4
    assert program.parameters()["0.weight"].tolist() == [[4.0, 0.0], [-3.0, 0.0]]
    assert program.parameters()["2.weight"].tolist() == [[40.0, 0.0], [-30.0, 0.0]]
    assert program.parameters()["0.bias"].tolist() == pytest.approx([0.001, 0.001])
    assert set(masks) == {"0.weight", "2.weight"}


def test_global_half_takes_the_small_layer(program):
    prune_elements(program, {}, stage(allocation={"scope": "global", "count": 3}), seed=0)
    assert program.parameters()["0.weight"].tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert torch.count_nonzero(program.parameters()["2.weight"]) == 4


def test_normalisation_makes_layers_comparable(program):
    chosen = stage(allocation={"scope": "global", "count": 2}, normalize="max")
    prune_elements(program, {}, chosen, seed=0)
    assert [int(torch.count_nonzero(program.parameters()[f"{n}.weight"])) for n in (0, 2)] == [3, 3]


def test_excluded_layer_is_left_whole(program):
    masks, _ = prune_elements(program, {}, stage(exclude=["0"]), seed=0)
    assert set(masks) == {"2.weight"}


def test_rounds_add_to_earlier_masks(program):
    four = stage(allocation={"amount": 0.75})
    masks, first = prune_elements(program, {}, four, seed=0, round_number=1, rounds=2)
    masks, second = prune_elements(program, masks, four, seed=1, round_number=2, rounds=2)
    assert (first, second) == (4, 2)
    assert program.parameters()["0.weight"].tolist() == [[4.0, 0.0], [0.0, 0.0]]


def test_random_keeps_what_is_masked_already(program):
    drawn = stage(criterion="random", allocation={"amount": 0.5})
    masks, _ = prune_elements(program, {}, drawn, seed=0)
    more = stage(criterion="random", allocation={"amount": 0.75})
    later, removed = prune_elements(program, masks, more, seed=99)
    assert removed == 2
    assert not any((later[name] & ~masks[name]).any() for name in masks)


def test_a_pattern_without_a_layer_and_excluding_everything(program):
    with pytest.raises(PatternMatchesNothing) as pattern:
        prune_elements(program, {}, stage(exclude=["0", "encoder.*"]), seed=0)
    assert pattern.value.where == "exclude.1"
    with pytest.raises(NothingPruned) as nothing:
        prune_elements(program, {}, stage(exclude=["*"]), seed=0)
    assert nothing.value.where == "exclude"


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    ],
)
def test_masked_weights_stay_zero_even_with_momentum_from_before(make):
    weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    optimizer = make([weight])
    weight.sum().backward()
    optimizer.step()  # fills momentum for every weight, masked ones included
    masks = {"w": torch.tensor([[True, False], [False, True]])}
    apply_masks({"w": weight}, masks)
    bits = BitMasks()
    for _ in range(3):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        weight.grad += 1.0
        bits.zero_gradients({"w": weight}, masks)
        assert weight.grad[0, 1] == 0
        optimizer.step()
        bits.zero_weights({"w": weight}, masks)
        assert weight[0, 1] == 0
        assert weight[1, 0] == 0
    assert weight[0, 0] != 1.0


def test_infinite_weights_are_masked_to_zero_not_to_nan():
    weight = torch.tensor([float("inf"), 1.0])
    apply_masks({"w": weight}, {"w": torch.tensor([False, True])})
    assert weight.tolist() == [0.0, 1.0]


def test_saved_as_booleans_by_parameter_name(tmp_path, program):
    masks, _ = prune_elements(program, {}, stage(), seed=0)
    save_masks(masks, tmp_path / "masks.safetensors")
    loaded = load_file(tmp_path / "masks.safetensors")
    assert loaded["0.weight"].dtype == torch.bool
    assert loaded["0.weight"].tolist() == [[True, False], [True, False]]
