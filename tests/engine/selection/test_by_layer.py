"""Allocations that say for each layer how much it loses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from secateur.recipe import Allocation

from engine.errors import NothingPruned, PatternMatchesNothing
from engine.selection.by_layer import Unit, totals
from engine.selection.channels import Originals, Target, select_channels
from engine.selection.elements import select_elements
from engine.selection.units import channel_totals, element_totals
from tests.engine.coupled import MadeCoupling, MadeGroup, MadeSlices, coupling_of


def unit(name, size, *, layers=None, scores=None):
    return Unit(
        name=name,
        layers=layers or [name],
        size=size,
        shapes=[(size, 1)],
        scores=np.ones(size) if scores is None else np.array(scores),
        magnitudes=np.empty(0),
    )


def test_the_first_pattern_that_matches_decides():
    allocation = Allocation(layers={"features.0": 0.5, "features.*": 0.3, "head": 0.8})
    units = [unit("features.0", 10), unit("features.1", 10), unit("head", 10), unit("other", 10)]
    # 0.5, 0.3, 0.8 of 10, and nothing where no pattern matches
    assert list(totals(allocation, units).values()) == [5, 3, 8, 0]


def test_layers_that_no_pattern_matches_lose_the_amount():
    allocation = Allocation(layers={"head": 0.0}, amount=0.25)
    assert totals(allocation, [unit("head", 8), unit("body", 8)]) == {"head": 0, "body": 2}


def test_fractions_are_rounded_half_up_in_decimals():
    assert totals(Allocation(layers={"a": 0.35}), [unit("a", 10)]) == {"a": 4}


def test_a_pattern_matches_any_layer_of_a_coupled_group():
    coupled = unit("stem", 8, layers=["stem", "block.conv2"])
    assert totals(Allocation(layers={"block.*": 0.5}), [coupled]) == {"stem": 4}


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"a": 0.5, "hed": 0.5}, "`hed` matches no layer that can be pruned"),
        ({"*": 0.5, "head": 0.5}, r"`head` decides for no layer: `\*` comes first"),
    ],
)
def test_a_pattern_that_decides_nothing_is_refused(layers, words):
    with pytest.raises(PatternMatchesNothing, match=words) as refused:
        totals(Allocation(layers=layers), [unit("a", 4), unit("head", 4)])
    assert "head" in refused.value.hint
    assert refused.value.where == f"allocation.layers.{list(layers)[1]}"


def test_threshold_takes_what_scores_below():
    units = [unit("a", 4, scores=[0.1, 0.5, 0.2, 0.9]), unit("b", 2, scores=[0.3, 2.0])]
    assert totals(Allocation(threshold=0.5), units) == {"a": 2, "b": 1}
    assert totals(Allocation(threshold=0.05), units) == {"a": 0, "b": 0}


def test_a_threshold_that_empties_a_layer_names_it_and_its_largest_score():
    units = [unit("a", 2, scores=[0.1, 0.2])]
    with pytest.raises(NothingPruned, match="leave the layer `a` empty") as refused:
        totals(Allocation(threshold=0.5), units)
    assert "0.2" in refused.value.hint


def test_threshold_on_channels_of_a_coupling():
    coupling = coupling_of([4, 2])
    scores = np.array([0.4, 0.1, 0.3, 0.6, 0.7, 0.8])
    tensors = {"g0.weight": torch.ones(4, 3), "g1.weight": torch.ones(2, 4)}
    allocation = Allocation(threshold=0.35)
    counts = channel_totals(allocation, coupling, tensors, scores)
    target = Target(allocation, Originals.of(coupling.groups), totals=counts)
    assert select_channels(coupling, scores, target).removed.tolist() == [1, 2]


def test_quality_is_a_multiple_of_the_standard_deviation():
    # [1, -1, 3, -3]: mean 0, sigma = sqrt((1 + 1 + 9 + 9) / 4) = 2.236; half of it is 1.118.
    # [10, -10, 10, -30]: mean -5, sigma = sqrt((225 + 25 + 225 + 625) / 4) = 16.58; half is 8.29.
    weights = {
        "a.weight": torch.tensor([[1.0, -1.0], [3.0, -3.0]]),
        "b.weight": torch.tensor([[10.0, -10.0], [10.0, -30.0]]),
    }
    scores = {name: weight.abs() for name, weight in weights.items()}
    half, two_thirds = Allocation(quality=0.5), Allocation(quality=0.67)
    assert element_totals(half, weights, scores, {}) == {"a.weight": 2, "b.weight": 0}
    # 0.67 * 16.58 = 11.1: three of b are below.
    assert element_totals(two_thirds, weights, scores, {}) == {"a.weight": 2, "b.weight": 3}


def test_quality_leaves_masked_weights_out_of_the_deviation_and_counts_them_gone():
    # Kept are 1, -1, 3, -3 (sigma 2.236); with four zeros it would be 1.58, half of it 0.79.
    weights = {"a.weight": torch.tensor([[1.0, -1.0, 3.0, -3.0], [0.0, 0.0, 0.0, 0.0]])}
    masks = {"a.weight": weights["a.weight"] != 0}
    scores = {"a.weight": torch.where(masks["a.weight"], weights["a.weight"].abs(), -1.0)}
    assert element_totals(Allocation(quality=0.5), weights, scores, masks) == {"a.weight": 6}


def test_erdos_renyi_on_the_weights_of_convolutions_and_of_a_head():
    # Sums of dimensions: 4+1+3+3 = 11, 8+4+3+3 = 18, 10+8 = 18; sizes 36, 288, 80: 404 in all.
    # Half goes: 202 stay, eps = 202 / 47 = 4.298 would give the first 47.3 of 36: it stays whole.
    # 166 over 36: eps = 4.611, 83 each; the last has 80 and stays whole, the second keeps 86.
    shapes = {"a.weight": (4, 1, 3, 3), "b.weight": (8, 4, 3, 3), "c.weight": (10, 8)}
    weights = {name: torch.ones(shape) for name, shape in shapes.items()}
    allocation = Allocation(amount=0.5, distribution="erdos_renyi")
    counts = element_totals(allocation, weights, weights, {})
    assert counts == {"a.weight": 0, "b.weight": 202, "c.weight": 0}
    # Without kernels r n is 9 x 5 = 45, 9 x 12 = 108 and 18: 53.2 of 36 stays whole, and 166 over
    # 126 leave 142.3 and 23.7.
    plain = Allocation(amount=0.5, distribution="erdos_renyi_plain")
    counts = element_totals(plain, weights, weights, {})
    assert counts == {"a.weight": 0, "b.weight": 288 - 142, "c.weight": 80 - 24}


def test_erdos_renyi_on_channels_keeps_them_in_proportion_to_the_density():
    # r: (10 + 2) / 20 = 0.6 and (10 + 10) / 100 = 0.2, 10 channels each, 8 of 20 stay: 6 and 2.
    coupling = coupling_of([10, 10])
    tensors = {"g0.weight": torch.ones(10, 2), "g1.weight": torch.ones(10, 10)}
    allocation = Allocation(amount=0.6, distribution="erdos_renyi")
    assert channel_totals(allocation, coupling, tensors, np.ones(20)) == {"g0": 4, "g1": 8}


def test_a_group_of_a_vector_alone_has_a_ratio_too():
    coupling = MadeCoupling(
        4, [MadeSlices("scale", 0, "vector", np.arange(4))], [MadeGroup("scale", np.arange(4))]
    )
    allocation = Allocation(amount=0.5, distribution="erdos_renyi")
    assert channel_totals(allocation, coupling, {"scale": torch.ones(4)}, np.ones(4)) == {
        "scale": 2
    }


ALLOCATIONS = [
    Allocation(layers={"a": 0.7, "b": 0.2}),
    Allocation(threshold=0.62),
    Allocation(quality=0.55),
    Allocation(amount=0.66, distribution="erdos_renyi"),
]


@pytest.mark.parametrize("rounds", [2, 3, 5])
@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=["layers", "threshold", "quality", "erk"])
def test_rounds_add_up_to_one_shot(allocation, rounds):
    source = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(size, 7, generator=source) for name, size in (("a.w", 9), ("b.w", 5))
    }
    scores = {name: weight.abs() for name, weight in weights.items()}
    counts = element_totals(allocation, weights, scores, {})
    assert any(counts.values())
    once = select_elements(scores, allocation, totals=counts)
    before = 0
    for number in range(1, rounds + 1):
        masks = select_elements(
            scores, allocation, round_number=number, rounds=rounds, totals=counts
        )
        gone = sum(int((~mask).sum()) for mask in masks.values())
        assert gone >= before
        before = gone
        scores = {name: torch.where(masks[name], scores[name], -1.0) for name in scores}
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == counts
    assert all(torch.equal(masks[name], once[name]) for name in masks)
