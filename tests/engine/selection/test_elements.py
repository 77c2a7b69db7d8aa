from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Allocation

from engine.selection.elements import select_elements
from engine.selection.schedule import final_count


def test_local_masks_the_smallest_of_each_tensor():
    scores = {"a": torch.tensor([[4.0, 1.0], [3.0, 2.0]]), "b": torch.tensor([10.0, 20.0])}
    masks = select_elements(scores, Allocation(amount=0.5))
    assert masks["a"].tolist() == [[True, False], [True, False]]
    assert masks["b"].tolist() == [False, True]


def test_global_masks_the_smallest_anywhere_but_one_of_each():
    scores = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 20.0, 30.0])}
    masks = select_elements(scores, Allocation(scope="global", count=3))
    assert masks["a"].tolist() == [False, False, True]
    assert masks["b"].tolist() == [False, True, True]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
    st.floats(0.01, 0.99),
    st.sampled_from(["local", "global"]),
    st.integers(0, 2**31),
)
def test_counts_are_exact_where_one_can_stay(sizes, amount, scope, seed):
    source = torch.Generator().manual_seed(seed)
    scores = {str(n): torch.rand(size, generator=source) for n, size in enumerate(sizes)}
    allocation = Allocation(scope=scope, amount=amount)
    masks = select_elements(scores, allocation)
    assert all(mask.any() for mask in masks.values())
    masked = [int((~mask).sum()) for mask in masks.values()]
    if scope == "local":
        assert masked == [min(final_count(allocation, size), size - 1) for size in sizes]
    else:
        spare = sum(sizes) - len(sizes)
        assert sum(masked) == min(final_count(allocation, sum(sizes)), spare)


def test_rounds_are_cumulative_when_masked_elements_score_lowest():
    weight = torch.rand(40, generator=torch.Generator().manual_seed(0))
    allocation = Allocation(amount=0.7)
    score = weight.clone()
    for round_number in (1, 2, 3):
        mask = select_elements({"w": score}, allocation, round_number=round_number, rounds=3)["w"]
        assert not mask[score < 0].any()
        score = torch.where(mask, weight, -1.0)
    assert int((~mask).sum()) == 28
