"""Scores worked out by hand on one coupling.

Two convolutions `a` and `b` (as 3 x 2 matrices) make the same three channels (a residual sum),
`c` reads them, and `n` is their normalisation:

    a = [[1, -2], [0, 3], [2, 2]]      l1: 3, 3, 4     l2: sqrt 5, 3, sqrt 8
    b = [[0, 4], [1, 0], [-1, 1]]      l1: 4, 1, 2     l2: 4, 1, sqrt 2
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from secateur.recipe import Criterion as CriterionName

from engine.scores import component_scores, criterion, names
from engine.scores.registry import Criterion, register
from tests.engine.coupled import MadeCoupling, MadeGroup, MadeSlices

IDS = np.array([0, 1, 2])
TENSORS = {
    "a.weight": torch.tensor([[1.0, -2.0], [0.0, 3.0], [2.0, 2.0]]),
    "b.weight": torch.tensor([[0.0, 4.0], [1.0, 0.0], [-1.0, 1.0]]),
    "c.weight": torch.full((5, 3), 100.0),
    "n.weight": torch.tensor([7.0, 8.0, 9.0]),
}
COUPLING = MadeCoupling(
    component_count=3,
    slices=[
        MadeSlices("a.weight", 0, "output", IDS),
        MadeSlices("b.weight", 0, "output", IDS),
        MadeSlices("c.weight", 1, "input", IDS),
        MadeSlices("n.weight", 0, "vector", IDS),
    ],
    groups=[MadeGroup("a", IDS)],
)


def scored(name="l1_norm", aggregate="sum", normalize="none", coupling=COUPLING, seed=0):
    return component_scores(
        coupling, TENSORS, criterion(name), aggregate=aggregate, normalize=normalize, seed=seed
    )


@pytest.mark.parametrize(
    ("name", "aggregate", "expected"),
    [
        ("l1_norm", "sum", [7.0, 4.0, 6.0]),
        ("l1_norm", "mean", [3.5, 2.0, 3.0]),
        ("l1_norm", "max", [4.0, 3.0, 4.0]),
        ("l1_norm", "l2", [5.0, 10**0.5, 20**0.5]),
        ("l2_norm", "sum", [5**0.5 + 4, 4.0, 8**0.5 + 2**0.5]),
        ("l2_norm", "max", [4.0, 3.0, 8**0.5]),
    ],
)
def test_hand_computed(name, aggregate, expected):
    np.testing.assert_allclose(scored(name, aggregate), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [("mean", [21 / 17, 12 / 17, 18 / 17]), ("max", [1.0, 4 / 7, 6 / 7])],
)
def test_normalised_within_the_group(normalize, expected):
    np.testing.assert_allclose(scored(normalize=normalize), expected, rtol=1e-6)


def test_criteria_differ_from_each_other():
    of_weights = ["geometric_median", "l1_norm", "l2_norm", "lamp", "random"]
    results = {name: tuple(np.round(scored(name), 6)) for name in of_weights}
    assert len(set(results.values())) == len(of_weights)


def test_registry_holds_exactly_the_names_of_the_recipe():
    assert set(names()) == set(get_args(CriterionName))


def test_registry_refuses_a_second_criterion_of_one_name():
    with pytest.raises(ValueError, match="`l1_norm` is registered twice"):
        register(Criterion("l1_norm", draw=lambda count, _: torch.zeros(count)))


def test_group_without_a_producing_weight_uses_all_its_slices():
    coupling = MadeCoupling(
        component_count=3,
        slices=[
            MadeSlices("c.weight", 1, "input", IDS),
            MadeSlices("n.weight", 0, "vector", IDS),
        ],
        groups=[MadeGroup("n", IDS)],
    )
    np.testing.assert_allclose(scored(coupling=coupling), [507.0, 508.0, 509.0])


def test_a_component_with_several_indices_adds_them_up_and_frozen_ones_count_for_none():
    coupling = MadeCoupling(
        component_count=1,
        slices=[MadeSlices("a.weight", 0, "output", np.array([0, -1, 0]))],
        groups=[MadeGroup("a", np.array([0]))],
    )
    np.testing.assert_allclose(scored(coupling=coupling), [7.0])


def test_random_is_seeded_and_blind_to_weights_and_to_the_order_of_layers():
    first = MadeGroup("x", np.array([0, 1, 2]))
    second = MadeGroup("y", np.array([3, 4, 5]))
    one = MadeCoupling(6, [], [first, second])
    other = MadeCoupling(6, [], [second, first])
    np.testing.assert_array_equal(scored("random", coupling=one), scored("random", coupling=other))
    assert not np.array_equal(
        scored("random", coupling=one, seed=0), scored("random", coupling=one, seed=1)
    )


def test_ten_thousand_groups_take_no_quadratic_time():
    count = 200_000
    ids = np.arange(count)
    coupling = MadeCoupling(
        component_count=count,
        slices=[MadeSlices("w", 0, "output", ids)],
        groups=[MadeGroup(str(n), ids[n * 20 : n * 20 + 20]) for n in range(count // 20)],
    )
    result = component_scores(
        coupling,
        {"w": torch.ones(count, 2)},
        criterion("l1_norm"),
        aggregate="sum",
        normalize="mean",
        seed=0,
    )
    np.testing.assert_allclose(result, 1.0)
