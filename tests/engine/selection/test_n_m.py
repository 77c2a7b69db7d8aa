from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Agp

from engine.selection.n_m import broken_groups, select_pattern


def test_two_of_four_of_a_linear_layer():
    scores = {"w": torch.tensor([[4.0, 1.0, 3.0, 2.0, 8.0, 7.0, 6.0, 5.0]])}
    mask = select_pattern(scores, {"w": 1}, kept=2, group=4)["w"]
    assert mask.int().tolist() == [[1, 0, 1, 0, 1, 1, 0, 0]]


def test_one_of_four_and_ties_fall_to_the_first():
    scores = {"w": torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 3.0, 1.0, 0.0]])}
    mask = select_pattern(scores, {"w": 1}, kept=1, group=4)["w"]
    assert mask.int().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]


def test_a_convolution_groups_its_input_channels_at_each_place_of_the_kernel():
    # [1 out, 4 in, 1, 2]: at the first place the inputs score 1 2 3 4, at the second 4 3 2 1.
    scores = {
        "w": torch.tensor([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]]).reshape(1, 4, 1, 2)
    }
    mask = select_pattern(scores, {"w": 1}, kept=2, group=4)["w"]
    assert mask[0, :, 0].int().tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


def test_inputs_along_the_first_dimension():
    scores = {"w": torch.tensor([[1.0, 9.0], [2.0, 1.0]])}
    mask = select_pattern(scores, {"w": 0}, kept=1, group=2)["w"]
    assert mask.int().tolist() == [[0, 1], [1, 0]]


def test_rounds_take_the_same_number_of_every_group_and_end_in_the_pattern():
    # 4 of 8 in two rounds: 8 (1 - 0.5^0.5) = 2.34 go first, which is 2.
    score = torch.arange(16.0).reshape(1, 16)
    first = select_pattern({"w": score}, {"w": 1}, kept=4, group=8, round_number=1, rounds=2)["w"]
    assert first.int().tolist() == [[0, 0, 1, 1, 1, 1, 1, 1] * 2]
    last = select_pattern({"w": score}, {"w": 1}, kept=4, group=8, round_number=2, rounds=2)["w"]
    assert last.int().tolist() == [[0, 0, 0, 0, 1, 1, 1, 1] * 2]


def test_a_ramp_ends_in_the_pattern_and_takes_the_least_of_all_groups_on_its_way():
    # Groups (4, 1, 3, 2), (8, 7, 6, 5), (9, 0, 9, 9); 2 of 4 is 6 of 12 in the end. After 1 of 3
    # growths 12 x 0.5 (1 - 8/27) = 4.2, so 4 = 3 + 1: one of every group, and of the next in
    # line, 2, 6 and 9, the lowest. After 2 of 3 12 x 0.5 (1 - 1/27) = 5.8: all 6.
    rows = [[4.0, 1.0, 3.0, 2.0], [8.0, 7.0, 6.0, 5.0], [9.0, 0.0, 9.0, 9.0]]
    score = torch.tensor(rows).reshape(1, 12)
    ramp = Agp(kind="agp", rounds=3)

    def after(growth, score, schedule=ramp):
        chosen = select_pattern(
            {"w": score},
            {"w": 1},
            kept=2,
            group=4,
            round_number=growth,
            rounds=3,
            schedule=schedule,
        )
        return chosen["w"].reshape(3, 4)

    first = after(1, score)
    assert first.int().tolist() == [[1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 1]]
    whole = [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert after(2, score).int().tolist() == whole
    assert after(3, score).int().tolist() == whole
    # What went stays gone when the scores turn: the group that is ahead is ahead still.
    turned = torch.where(first.reshape(1, 12), -score, -torch.inf)
    later = Agp(kind="agp", rounds=3, initial=0.3)  # 0.3 of 12 at growth 0 is 4 as well
    assert torch.equal(after(0, turned, later), first)


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ([0, 1, 0, 1, 1, 1, 0, 0], 0),
        ([1, 1, 1, 0, 0, 0, 0, 0], 1),
        ([0, 0, 0, 0, 0, 0, 0, 0], 0),
        ([1, 0, 0, 0, 1], 1),  # a group cut short
    ],
)
def test_broken_groups_are_counted(row, broken):
    assert broken_groups(torch.tensor([row]).float(), 1, kept=2, group=4) == broken


@given(
    st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 2), (3, 5)]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1, 3]),
    st.integers(0, 2**31),
)
def test_every_group_keeps_exactly_n(pattern, groups, outputs, kernel, seed):
    kept, group = pattern
    source = torch.Generator().manual_seed(seed)
    weight = torch.rand(outputs, groups * group, kernel, kernel, generator=source) + 0.1
    mask = select_pattern({"w": weight}, {"w": 1}, kept=kept, group=group)["w"]
    assert int(mask.sum()) * group == weight.numel() * kept
    assert broken_groups(weight * mask, 1, kept=kept, group=group) == 0
